/** Which build of the engine a browser runs. Each is a folder of `wasm/` and a worker's script of that name. */
export type Variant = "relaxed-simd" | "simd128";

/** Whether the browser has relaxed SIMD: knows a module whose only function is a `i32x4.relaxed_dot_i8x16_i7x16_add`. */
export const variant = (): Variant => WebAssembly.validate(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0,
  10, 19, 1, 17, 0, 65, 1, 253, 17, 65, 1, 253, 17, 65, 1, 253, 17, 253, 147, 2, 11)) ? "relaxed-simd" : "simd128";
