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
