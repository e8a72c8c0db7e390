// Products of quantised weights in P16 with one to kFewRows rows of int8 activations.
// Included once, inside the instruction set's namespace, after matmul_tile.inl.h.
//
// Such a product must not be slower than memory, so weights go through registers once and all sums
// stay in registers. What is computed, and in which order, is that of matmul_quant.inl.h.

// A single row asks for memory ahead chunk by chunk, where that helps, and less far.
constexpr int kSingleAhead = 3072;  // bytes
template <typename Format, int kChunk, int kTokens>
[[gnu::always_inline]] static inline void PrefetchChunk(const uint8_t* panel_block) {
  if constexpr (kTokens == 1) {
    if (processor_follows_one_stream) return;
    PrefetchChunks<Format, kChunk, 1, kSingleAhead>(panel_block);
  }
}

// dot[t] += the products of one sub-block. A single token's are two sums, so that they wait for
// each other half as long.
template <int kMaxWeight, int kGroups, int kTokens>
[[gnu::always_inline]] static inline void FewDots(const B* w, const int8_t* q, int64_t q_stride,
                                                  I* dot) {
  if constexpr (kTokens == 1 && kGroups >= 4) {
    constexpr int kHalf = kGroups / 2;
    const I other = DotGroups<kMaxWeight, kHalf>(w + kHalf, q + 4 * kHalf, ZeroI());
    dot[0] = AddI(DotGroups<kMaxWeight, kHalf>(w, q, dot[0]), other);
  } else {
    DT_UNROLL for (int t = 0; t < kTokens; ++t) {
      dot[t] = DotGroups<kMaxWeight, kGroups>(w, q + t * q_stride, dot[t]);
    }
  }
}

// --- blocks of 256

// sum + scale * the products of groups [kGroup, kEnd) of a chunk, which are unpacked two at a time:
// those of a whole chunk take all of 16 registers.
template <typename Format, int kChunk, int kGroup, int kEnd>
[[gnu::always_inline]] static inline I AddFewGroups(const uint8_t* panel_block, const int8_t* q,
                                                    I scale, I sum) {
  if constexpr (kGroup < kEnd) {
    B w[8];
    Format::template Unpack<kChunk>(panel_block, w);
    sum = AddScaledDot<Format::kMaxWeight, 2>(w + kGroup, q + 4 * kGroup, scale, sum);
    asm volatile("" ::: "memory");  // what is needed again is read again, not kept
    return AddFewGroups<Format, kChunk, kGroup + 2, kEnd>(panel_block, q, scale, sum);
  }
  return sum;
}
// A sub-block's scale, twice in a lane.
template <typename Format, int kSubBlock>
[[gnu::always_inline]] static inline I ScaleTwice(const uint8_t* panel_block) {
  if constexpr (requires { Format::template ScaleTwice<kSubBlock>(panel_block); }) {
    return Format::template ScaleTwice<kSubBlock>(panel_block);
  } else {
    return TwiceInLane(Format::Scale(panel_block, kSubBlock));
  }
}
template <typename Format, int kChunk>
[[gnu::always_inline]] static inline I AddFewPairs(const uint8_t* panel_block, const int8_t* q,
                                                   I sum) {
  constexpr int kSubs = 32 / Format::kSubBlock, kGroups = 8 / kSubs;
  const I scale = ScaleTwice<Format, kChunk * kSubs>(panel_block);
  if constexpr (requires { Format::kUnpackInParts; }) {
    static_assert(kSubs == 2);
    sum = AddFewGroups<Format, kChunk, 0, 4>(panel_block, q, scale, sum);
    const I second = ScaleTwice<Format, kChunk * kSubs + 1>(panel_block);
    return AddFewGroups<Format, kChunk, 4, 8>(panel_block, q, second, sum);
  }
  B w[8];
  Format::template Unpack<kChunk>(panel_block, w);
  sum = AddScaledDot<Format::kMaxWeight, kGroups>(w, q, scale, sum);
  if constexpr (kSubs == 2) {
    const I second = ScaleTwice<Format, kChunk * kSubs + 1>(panel_block);
    sum = AddScaledDot<Format::kMaxWeight, kGroups>(w + 4, q + 16, second, sum);
  }
  return sum;
}

// sum[t] += the scaled products of a chunk.
template <typename Format, int kChunk, int kTokens>
[[gnu::always_inline]] static inline void FewChunk(const uint8_t* panel_block, const int8_t* q,
                                                   int64_t q_stride, I* sum) {
  constexpr int kSubs = 32 / Format::kSubBlock, kGroups = 8 / kSubs;
  if constexpr (kPairProducts) {
    static_assert(kTokens == 1);
    sum[0] = AddFewPairs<Format, kChunk>(panel_block, q + 32 * kChunk, sum[0]);
    if constexpr (kSubs == 2) KeepOrder(&sum[0]);  // one sum a chunk was slower so (Q4_K)
    return;
  }
  B w[8];
  Format::template Unpack<kChunk>(panel_block, w);
  DT_UNROLL for (int s = 0; s < kSubs; ++s) {
    const int8_t* x = q + 32 * kChunk + Format::kSubBlock * s;
    const I scale = Format::Scale(panel_block, kChunk * kSubs + s);
    I dot[kTokens];
    DT_UNROLL for (I& d : dot) d = ZeroI();
    FewDots<Format::kMaxWeight, kGroups, kTokens>(w + kGroups * s, x, q_stride, dot);
    DT_UNROLL for (int t = 0; t < kTokens; ++t) {
      sum[t] = AddI(sum[t], MulI(dot[t], scale));
      KeepOrder(&sum[t]);
    }
  }
}

template <typename Format, int kTokens>
[[gnu::always_inline]] static inline void FewBlock256(const MatmulArgs& args,
                                                      const uint8_t* panel_block, int64_t block,
                                                      F* sums) {
  if constexpr (kTokens > 1) {
    if (!processor_follows_one_stream) PrefetchChunks<Format, 0, 8>(panel_block);
  }
  const int64_t q_stride = args.x.q_stride;
  const int8_t* q = args.x.q + 256 * block;
  I product[kTokens], weighted[kTokens];
  DT_UNROLL for (int t = 0; t < kTokens; ++t) product[t] = weighted[t] = ZeroI();
  ForFour([&](auto half) {
    constexpr int kChunk = 2 * decltype(half)::kValue;
    PrefetchChunk<Format, kChunk, kTokens>(panel_block);
    FewChunk<Format, kChunk, kTokens>(panel_block, q, q_stride, product);
    PrefetchChunk<Format, kChunk + 1, kTokens>(panel_block);
    FewChunk<Format, kChunk + 1, kTokens>(panel_block, q, q_stride, product);
  });
  alignas(16) int16_t room[kTokens][8];
  const int16_t* sums_of_subs[kTokens];
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    sums_of_subs[t] = SumsOfSubBlocks<kSumPairs<Format>>(
        args.x.bsum + t * args.x.bsum_stride + 16 * block, room[t]);
  }
  DT_UNROLL for (int i = 0; i < kSumPairs<Format>; ++i) {
    const I pairs = SumPairs<Format>(panel_block, i);
    DT_UNROLL for (int t = 0; t < kTokens; ++t) {
      weighted[t] = DotI16(weighted[t], pairs, SumsOfPair(sums_of_subs[t], i));
    }
  }
  const F d = Format::D(panel_block);
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    const F scale = Set1(args.x.d[t * args.x.d_stride + block]);
    if constexpr (!Format::kHasMin) product[t] = AddI(product[t], weighted[t]);
    sums[t] = Fma(ToFloat(product[t]), Mul(d, scale), sums[t]);
    if constexpr (Format::kHasMin) {
      const F min = Mul(LoadHalves(panel_block + Format::P16::kMin), Set1(Format::kMinSign));
      sums[t] = Fma(ToFloat(weighted[t]), Mul(min, scale), sums[t]);
    }
  }
}

// --- blocks of 32 (NVFP4: 16)

template <typename Format, int kTokens>
[[gnu::always_inline]] static inline void FewSmallBlock(const MatmulArgs& args,
                                                        const uint8_t* panel_block, int64_t block,
                                                        F* sums) {
  constexpr int kGroups = Format::kBlock / 4;
  constexpr int kAhead = kTokens == 1 ? kSingleAhead : kPrefetchAhead;
  if (!processor_follows_one_stream) PrefetchBlocks<Format, 1, kAhead>(panel_block);
  B w[kGroups];
  Format::template Unpack<0>(panel_block, w);
  const int16_t* bsum = args.x.bsum + Format::kBlock / 16 * block;
  I dot[kTokens];
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    dot[t] = OffsetOfDot<Format>(bsum + t * args.x.bsum_stride);
  }
  FewDots<Format::kMaxWeight, kGroups, kTokens>(w, args.x.q + Format::kBlock * block,
                                                args.x.q_stride, dot);
  const F d = Format::D(panel_block), m = MinOf<Format>(panel_block);
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    sums[t] = AddBlock<Format>(sums[t], dot[t], d, m, Set1(args.x.d[t * args.x.d_stride + block]),
                               bsum + t * args.x.bsum_stride);
  }
}

// --- all panels of a slice

template <typename Format, int kTokens>
[[gnu::always_inline]] static inline void FewPanel(const MatmulArgs& args, const uint8_t* panel,
                                                   F* sums) {
  const int64_t num_blocks = args.k / Format::kBlock;
  if constexpr (Format::kBlock > 32) {
    for (int64_t block = 0; block < num_blocks; ++block, panel += Format::P16::kBytes) {
      FewBlock256<Format, kTokens>(args, panel, block, sums);
    }
  } else {
    for (int64_t block = 0; block < num_blocks; ++block, panel += Format::P16::kBytes) {
      FewSmallBlock<Format, kTokens>(args, panel, block, sums);
    }
  }
}

template <typename Format, int kTokens>
static void FewMatmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  const int64_t panel_bytes = args.k / Format::kBlock * Format::P16::kBytes;
  for (int64_t panel = begin; panel < end; ++panel) {
    F sums[kTokens];
    DT_UNROLL for (F& sum : sums) sum = Zero();
    FewPanel<Format, kTokens>(args, args.w + panel * panel_bytes, sums);
    alignas(64) float stored[kTokens][16];
    DT_UNROLL for (int t = 0; t < kTokens; ++t) Store(stored[t], sums[t]);
    StoreSums(args, 0, kTokens, stored[0], 16, panel);
  }
}

// By the number of rows and what the processor is good at (kernels/cpu/processor.h).
template <typename Format>
static void AnyMatmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  if (args.rows == 1) return FewMatmul<Format, 1>(args, begin, end);
  if constexpr (kFewRows >= 2) {
    if (args.rows == 2) return FewMatmul<Format, 2>(args, begin, end);
  }
  if constexpr (kFewRows >= 3) {
    if (args.rows == 3) return FewMatmul<Format, 3>(args, begin, end);
  }
  constexpr bool kTilesAlways = kManyRows == ManyRows::kTiles;
  if constexpr (kManyRows != ManyRows::kStreams) {
    // More rows than a group of tokens would read the panels again for each.
    const bool streams = processor_follows_one_stream && args.rows <= kTokenGroup;
    if (kTilesAlways || !streams) return TileMatmul<Format>(args, begin, end);
  }
  if constexpr (!kTilesAlways) QuantMatmul<Format>(args, begin, end);
}
