/** The worker for browsers with relaxed SIMD. */
import * as engine from "../wasm/relaxed-simd/openweights.js";
import { serve } from "./worker.js";

serve(engine);
