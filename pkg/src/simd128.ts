/** The worker for browsers with 128-bit SIMD. */
import * as engine from "../wasm/simd128/openweights.js";
import { serve } from "./worker.js";

serve(engine);
