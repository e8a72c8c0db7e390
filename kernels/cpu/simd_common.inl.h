// What is the same over every vocabulary of vectors. Included once, inside the instruction set's
// namespace, after it.

// Whole vectors go through Load and Store, the rest through the masked forms.
static inline F LoadUpTo(const float* p, int n, float fill) {
  return n >= 16 ? Load(p) : LoadPart(p, n, fill);
}
static inline void StoreUpTo(float* p, int n, F v) {
  if (n >= 16) {
    Store(p, v);
  } else {
    StorePart(p, n, v);
  }
}

// Magnitudes of floats compare as their bits do, infinities and NaN above all numbers.
constexpr int32_t kInfinityBits = 0x7f800000;
static inline I MagnitudeBits(F v) { return AndI(BitsOf(v), SetI1(0x7fffffff)); }
static inline float FloatOfBits(int32_t bits) {
  float f;
  __builtin_memcpy(&f, &bits, sizeof(f));
  return f;
}
