// Elements of two consecutive vec4s.
struct Eight {
    low: vec4f,
    high: vec4f,
}

