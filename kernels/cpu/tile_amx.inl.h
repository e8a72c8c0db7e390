// The tile registers of AMX. tile_software.inl.h has the same names and says by its code what each
// one does. Included once, inside the instruction set's namespace.
//
// Written as assembly because the intrinsics of GCC 12 neither take a template's constants nor tell
// the compiler that memory is read and written.

static inline void ConfigureTiles(const TileConfig& config) {
  asm volatile("ldtilecfg %0" : : "m"(config));
}
static inline void ReleaseTiles() { asm volatile("tilerelease"); }
template <int kTile>
[[gnu::always_inline]] static inline void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
[[gnu::always_inline]] static inline void LoadTile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
[[gnu::always_inline]] static inline void StoreTile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
}
// Sums += activations (signed bytes) times weights (bytes, signed or not).
template <int kSum, int kTokens, int kWeights, bool kSignedWeights = false>
[[gnu::always_inline]] static inline void DotTiles() {
  if constexpr (kSignedWeights) {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kTokens), "i"(kWeights));
  } else {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kTokens), "i"(kWeights));
  }
}
// Sums, as floats, += activations times weights, both of them bf16.
template <int kSum, int kTokens, int kWeights>
[[gnu::always_inline]] static inline void DotTilesBf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kTokens), "i"(kWeights));
}
