// Products of quantised weights in P16 with int8 activations, for any number of rows, and what the
// faster ones for few rows (matmul_few.inl.h) and in tiles (matmul_tile.inl.h) share with it.
// Included once, inside the instruction set's namespace.
//
// Weight-stationary: a piece of a panel (16 weight rows x 32 or 64 k) is unpacked into registers
// once and meets every activation row ("token") of a group; the sums of the group stay in L1. All
// three give the same bits: an integer sum of a block is exact in any order, and the float sum of
// an element takes the blocks in order. Sums: kernels/ref/matmul.cc. Which of them is chosen:
// matmul_few.inl.h.

constexpr int kTokenGroup = 64;       // tokens whose sums (4 KiB) and activations stay close
constexpr int kPrefetchAhead = 8192;  // bytes

struct TokenGroup {
  int64_t first;
  int count;
  alignas(64) float sum[kTokenGroup * 16];
};

static inline void ZeroSums(TokenGroup* group) {
  for (int t = 0; t < group->count; ++t) Store(group->sum + 16 * t, Zero());
}

// y[token, 16 * panel ..] = or += the scaled sums and the bias, for `count` tokens from `first` on;
// a token's sums are `stride` floats after those of the one before. The last panel may be narrower
// than 16.
static inline void StoreSums(const MatmulArgs& args, int64_t first, int count, const float* sums,
                             int stride, int64_t panel) {
  const int lanes = static_cast<int>(args.n - panel * 16 < 16 ? args.n - panel * 16 : 16);
  const F scale = Set1(args.scale);
  const bool has_bias = args.bias != nullptr, accumulate = args.accumulate;
  const F bias = has_bias ? LoadUpTo(args.bias + panel * 16, lanes, 0.0f) : Zero();
  float* y = args.y + first * args.y_stride + panel * 16;
  for (int t = 0; t < count; ++t, y += args.y_stride) {
    F sum = Mul(Load(sums + stride * t), scale);
    if (has_bias) sum = Add(sum, bias);
    if (accumulate) sum = Add(LoadUpTo(y, lanes, 0.0f), sum);
    StoreUpTo(y, lanes, sum);
  }
}

// Calls body.template operator()<kTokens>(t) for kStreamTokens tokens [t, t + kTokens) at a time,
// and for what is left one by one.
template <typename Body>
[[gnu::always_inline]] static inline void ForTokens(int count, const Body& body) {
  int t = 0;
  for (; t + kStreamTokens <= count; t += kStreamTokens) body.template operator()<kStreamTokens>(t);
  if constexpr (kStreamTokens > 1) {
    for (; t < count; ++t) body.template operator()<1>(t);
  }
}

// dot[t] += the dot products of kGroups x 4 weights with as many activations of token t, those of
// the next token `stride` bytes further. Tokens take turns, so that no product waits for the one
// before it.
template <int kMaxWeight, int kGroups, int kTokens>
[[gnu::always_inline]] static inline void StreamDots(const B* w, const int8_t* q, int64_t stride,
                                                     I* dot) {
  if constexpr (kTokens == 1) {
    dot[0] = DotGroups<kMaxWeight, kGroups>(w, q, dot[0]);
  } else {
    DT_UNROLL for (int g = 0; g < kGroups; ++g) {
      DT_UNROLL for (int t = 0; t < kTokens; ++t) {
        dot[t] = DotGroups<kMaxWeight, 1>(w + g, q + t * stride + 4 * g, dot[t]);
      }
    }
  }
}

// A panel is one stream and the next panel follows it: asks for what comes kAhead bytes later, into
// the second-level cache, whose prefetches do not take the first level's few buffers. For kBlocks
// blocks of 32 or fewer, or chunks [kChunk, kChunk + kChunks) of a block of 256: a whole one's 40
// to 50 lines at once would hold up the loads.
template <typename Format, int kBlocks, int kAhead = kPrefetchAhead>
[[gnu::always_inline]] static inline void PrefetchBlocks(const uint8_t* p) {
  DT_UNROLL for (int i = 0; i < kBlocks * Format::P16::kBytes; i += 64) {
    __builtin_prefetch(p + kAhead + i, 0, 2);
  }
}
template <typename Format, int kChunk, int kChunks, int kAhead = kPrefetchAhead>
[[gnu::always_inline]] static inline void PrefetchChunks(const uint8_t* panel_block) {
  constexpr int kLines = (Format::P16::kBytes + 63) / 64;
  DT_UNROLL for (int i = kLines * kChunk / 8; i < kLines * (kChunk + kChunks) / 8; ++i) {
    __builtin_prefetch(panel_block + kAhead + 64 * i, 0, 2);
  }
}

// --- blocks of 32 (NVFP4: 16): one or two fmas per block
// ------------------------------------------------------

// factor * the sum of the activations of a block, in all lanes; `bsum` are its sums of 16.
template <int kBlock>
[[gnu::always_inline]] static inline I BroadcastSum(const int16_t* bsum, int16_t factor) {
  static_assert(kBlock == 16 || kBlock == 32);
  __m128i sums, factors;
  if constexpr (kBlock == 32) {
    sums = _mm_loadu_si32(bsum);
    factors = _mm_set1_epi16(factor);
  } else {
    sums = _mm_cvtsi32_si128(static_cast<uint16_t>(*bsum));
    factors = _mm_cvtsi32_si128(static_cast<uint16_t>(factor));
  }
  return BroadcastFirst(_mm_madd_epi16(sums, factors));
}
// What a block's dot product starts with: weights are stored with an offset.
template <typename Format>
[[gnu::always_inline]] static inline I OffsetOfDot(const int16_t* bsum) {
  if constexpr (Format::kOffset == 0) return ZeroI();
  return BroadcastSum<Format::kBlock>(bsum, -Format::kOffset);
}
// sum + what a block gives whose dot product with a token's activations is `dot`, whose factors are
// d and m, and theirs `scale`.
template <typename Format>
[[gnu::always_inline]] static inline F AddBlock(F sum, I dot, F d, F m, F scale,
                                                const int16_t* bsum) {
  sum = Fma(ToFloat(dot), Mul(d, scale), sum);
  if constexpr (Format::kHasMin) {
    static_assert(Format::kMinSign == 1.0f);
    sum = Fma(ToFloat(BroadcastSum<Format::kBlock>(bsum, 1)), Mul(m, scale), sum);
  }
  return sum;
}
template <typename Format>
[[gnu::always_inline]] static inline F MinOf(const uint8_t* panel_block) {
  if constexpr (Format::kHasMin) return LoadHalves(panel_block + Format::P16::kMin);
  return Zero();
}

// Adds kBlocks neighbouring blocks of a panel to the sums of the group.
template <typename Format, int kBlocks>
static inline void AddSmallBlocks(const MatmulArgs& args, const uint8_t* panel_block, int64_t block,
                                  TokenGroup* group) {
  PrefetchBlocks<Format, kBlocks>(panel_block);
  constexpr int kGroups = Format::kBlock / 4, kSums = Format::kBlock / 16;
  B w[kBlocks][kGroups];
  F d[kBlocks], m[kBlocks];
  for (int b = 0; b < kBlocks; ++b) {
    const uint8_t* from = panel_block + b * Format::P16::kBytes;
    Format::template Unpack<0>(from, w[b]);
    d[b] = Format::D(from);
    m[b] = MinOf<Format>(from);
  }
  const Activations& x = args.x;
  const int8_t* q = x.q + group->first * x.q_stride + Format::kBlock * block;
  const float* dx = x.d + group->first * x.d_stride + block;
  const int16_t* bsum = x.bsum + group->first * x.bsum_stride + kSums * block;
  ForTokens(group->count, [&]<int kTokens>(int t) {
    F sum[kTokens];
    DT_UNROLL for (int i = 0; i < kTokens; ++i) sum[i] = Load(group->sum + 16 * (t + i));
    DT_UNROLL for (int b = 0; b < kBlocks; ++b) {
      const int16_t* sums = bsum + kSums * b;
      I dot[kTokens];
      DT_UNROLL for (int i = 0; i < kTokens; ++i) {
        dot[i] = OffsetOfDot<Format>(sums + i * x.bsum_stride);
      }
      StreamDots<Format::kMaxWeight, kGroups, kTokens>(w[b], q + Format::kBlock * b, x.q_stride,
                                                       dot);
      DT_UNROLL for (int i = 0; i < kTokens; ++i) {
        sum[i] = AddBlock<Format>(sum[i], dot[i], d[b], m[b], Set1(dx[i * x.d_stride + b]),
                                  sums + i * x.bsum_stride);
      }
    }
    DT_UNROLL for (int i = 0; i < kTokens; ++i) Store(group->sum + 16 * (t + i), sum[i]);
    q += kTokens * x.q_stride;
    dx += kTokens * x.d_stride;
    bsum += kTokens * x.bsum_stride;
  });
}

template <typename Format>
static void PanelTimesGroupSmall(const MatmulArgs& args, const uint8_t* panel, TokenGroup* group) {
  const int64_t num_blocks = args.k / Format::kBlock;
  int64_t block = 0;
  for (; block + kBlocksPerStep <= num_blocks; block += kBlocksPerStep) {
    AddSmallBlocks<Format, kBlocksPerStep>(args, panel + block * Format::P16::kBytes, block, group);
  }
  for (; block < num_blocks; ++block) {
    AddSmallBlocks<Format, 1>(args, panel + block * Format::P16::kBytes, block, group);
  }
}

// --- 256-element blocks with integer sub-scales
// --------------------------------------------------------

struct IntegerSums {
  alignas(64) int32_t sum[kTokenGroup * 16];
};

// Adds chunk kChunk (32 k) and the next kChunks - 1 of a panel block, each sub-block times its
// scale, to the integer sums; the first chunk starts them.
template <typename Format, int kChunk, int kChunks>
static inline void AddChunks(const MatmulArgs& args, const uint8_t* panel_block, int64_t block,
                             const TokenGroup& group, IntegerSums* sums) {
  constexpr int kSubs = 32 / Format::kSubBlock;  // sub-blocks of a chunk
  constexpr int kGroups = 8 / kSubs;
  PrefetchChunks<Format, kChunk, kChunks>(panel_block);
  B w[kChunks][8];
  I scale[kChunks][kSubs];
  Format::template Unpack<kChunk>(panel_block, w[0]);
  if constexpr (kChunks > 1) Format::template Unpack<kChunk + 1>(panel_block, w[1]);
  for (int c = 0; c < kChunks; ++c) {
    for (int s = 0; s < kSubs; ++s) {
      scale[c][s] = Format::Scale(panel_block, (kChunk + c) * kSubs + s);
    }
  }
  const int8_t* q = args.x.q + group.first * args.x.q_stride + 256 * block + 32 * kChunk;
  ForTokens(group.count, [&]<int kTokens>(int t) {
    I sum[kTokens];
    DT_UNROLL for (int i = 0; i < kTokens; ++i) {
      sum[i] = kChunk == 0 ? ZeroI() : LoadI(sums->sum + 16 * (t + i));
    }
    DT_UNROLL for (int c = 0; c < kChunks; ++c) {
      DT_UNROLL for (int s = 0; s < kSubs; ++s) {
        I dot[kTokens];
        DT_UNROLL for (I& d : dot) d = ZeroI();
        StreamDots<Format::kMaxWeight, kGroups, kTokens>(
            w[c] + kGroups * s, q + 32 * c + Format::kSubBlock * s, args.x.q_stride, dot);
        DT_UNROLL for (int i = 0; i < kTokens; ++i) {
          sum[i] = AddI(sum[i], MulI(dot[i], scale[c][s]));
        }
      }
    }
    DT_UNROLL for (int i = 0; i < kTokens; ++i) StoreI(sums->sum + 16 * (t + i), sum[i]);
    q += kTokens * args.x.q_stride;
  });
}

template <typename Format>
static inline void AddAllChunks(const MatmulArgs& args, const uint8_t* panel_block, int64_t block,
                                const TokenGroup& group, IntegerSums* sums) {
  constexpr int kStep = kBlocksPerStep;
  AddChunks<Format, 0, kStep>(args, panel_block, block, group, sums);
  if constexpr (kStep == 1) AddChunks<Format, 1, kStep>(args, panel_block, block, group, sums);
  AddChunks<Format, 2, kStep>(args, panel_block, block, group, sums);
  if constexpr (kStep == 1) AddChunks<Format, 3, kStep>(args, panel_block, block, group, sums);
  AddChunks<Format, 4, kStep>(args, panel_block, block, group, sums);
  if constexpr (kStep == 1) AddChunks<Format, 5, kStep>(args, panel_block, block, group, sums);
  AddChunks<Format, 6, kStep>(args, panel_block, block, group, sums);
  if constexpr (kStep == 1) AddChunks<Format, 7, kStep>(args, panel_block, block, group, sums);
}

// What the sums of the activations of two neighbouring sub-blocks are multiplied with, as a pair of
// int16 per row, so that products are added two at a time: their minima, or their scales times
// minus the offset.
template <typename Format>
constexpr int kSumPairs = Format::kHasMin || Format::kOffset != 0 ? 128 / Format::kSubBlock : 0;

template <typename Format>
[[gnu::always_inline]] static inline I SumPairs(const uint8_t* panel_block, int pair) {
  if constexpr (Format::kHasMin) {
    static_assert(Format::kOffset == 0);
    return Format::MinPair(panel_block, pair);
  } else {
    const I scales =
        JoinInt16(Format::Scale(panel_block, 2 * pair), Format::Scale(panel_block, 2 * pair + 1));
    return MulI16(scales, SetI1(static_cast<int32_t>(0x10001u * (-Format::kOffset & 0xffff))));
  }
}
// `sums`: those of a block's sub-blocks (SumsOfSubBlocks).
static inline I SumsOfPair(const int16_t* sums, int pair) {
  return BroadcastDword(sums + 2 * pair);
}

// The sums of the activations of each sub-block; `room` is for those that are not stored.
template <int kPairs>
[[gnu::always_inline]] static inline const int16_t* SumsOfSubBlocks(const int16_t* bsum,
                                                                    int16_t (&room)[8]) {
  if constexpr (kPairs != 4) return bsum;
  StorePairSums(room, bsum);
  return room;
}

template <typename Format>
static inline void FinishBlock256(const MatmulArgs& args, const uint8_t* panel_block, int64_t block,
                                  const IntegerSums& sums, TokenGroup* group) {
  I pairs[kSumPairs<Format> + 1];
  for (int i = 0; i < kSumPairs<Format>; ++i) pairs[i] = SumPairs<Format>(panel_block, i);
  const F d = Format::D(panel_block);
  F min = Zero();
  if constexpr (Format::kHasMin) {
    min = Mul(LoadHalves(panel_block + Format::P16::kMin), Set1(Format::kMinSign));
  }
  const int16_t* bsum = args.x.bsum + group->first * args.x.bsum_stride + 16 * block;
  const float* dx = args.x.d + group->first * args.x.d_stride + block;
  ForTokens(group->count, [&]<int kTokens>(int t) {
    alignas(16) int16_t room[kTokens][8];
    const int16_t* of_subs[kTokens];
    I product[kTokens], weighted[kTokens];
    DT_UNROLL for (int i = 0; i < kTokens; ++i) {
      of_subs[i] = SumsOfSubBlocks<kSumPairs<Format>>(bsum + i * args.x.bsum_stride, room[i]);
      product[i] = LoadI(sums.sum + 16 * (t + i));
      weighted[i] = Format::kHasMin ? ZeroI() : product[i];
    }
    DT_UNROLL for (int pair = 0; pair < kSumPairs<Format>; ++pair) {
      DT_UNROLL for (int i = 0; i < kTokens; ++i) {
        weighted[i] = DotI16(weighted[i], pairs[pair], SumsOfPair(of_subs[i], pair));
      }
    }
    DT_UNROLL for (int i = 0; i < kTokens; ++i) {
      if constexpr (!Format::kHasMin) product[i] = weighted[i];
      const F scale = Set1(dx[i * args.x.d_stride]);
      F sum = Load(group->sum + 16 * (t + i));
      sum = Fma(ToFloat(product[i]), Mul(d, scale), sum);
      if constexpr (Format::kHasMin) sum = Fma(ToFloat(weighted[i]), Mul(min, scale), sum);
      Store(group->sum + 16 * (t + i), sum);
    }
    bsum += kTokens * args.x.bsum_stride;
    dx += kTokens * args.x.d_stride;
  });
}

template <typename Format>
static void PanelTimesGroup256(const MatmulArgs& args, const uint8_t* panel, TokenGroup* group) {
  IntegerSums sums;
  for (int64_t block = 0; block < args.k / 256; ++block) {
    AddAllChunks<Format>(args, panel, block, *group, &sums);
    FinishBlock256<Format>(args, panel, block, sums, group);
    panel += Format::P16::kBytes;
  }
}

// --- all panels of a slice
// -------------------------------------------------------------------------------

template <typename Format>
static void QuantMatmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  const int64_t panel_bytes = args.k / Format::kBlock * Format::P16::kBytes;
  TokenGroup group;
  for (int64_t first = 0; first < args.rows; first += kTokenGroup) {
    group.first = first;
    group.count =
        static_cast<int>(args.rows - first < kTokenGroup ? args.rows - first : kTokenGroup);
    for (int64_t panel = begin; panel < end; ++panel) {
      ZeroSums(&group);
      if constexpr (Format::kBlock <= 32) {
        PanelTimesGroupSmall<Format>(args, args.w + panel * panel_bytes, &group);
      } else {
        PanelTimesGroup256<Format>(args, args.w + panel * panel_bytes, &group);
      }
      StoreSums(args, group.first, group.count, group.sum, 16, panel);
    }
  }
}
