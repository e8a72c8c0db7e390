// Products of quantised weights in P16 with many rows of int8 activations, in tile registers.
// Included once, inside the instruction set's namespace, after amx_tokens.inl.h and
// amx_image.inl.h.
//
// One TDPB takes 16 tokens times 16 weight rows over 64 k (or over a block, where those are
// shorter). The int32 sums of a tile are exact; what is computed from them, and in which order, is
// that of matmul_quant.inl.h.

// Products of so many rows are made here; AVX-512's are faster with fewer, whose tiles are half
// empty (docs/kernels-measured.md).
template <typename Format>
constexpr int kTileRows = Format::kBlock == 256 && OneDigit<Format>() ? 8 : 12;

// --- blocks of 256

// What a block of a panel has beside its image: factors, and minimums as bf16, twice in a lane, one
// for each 16 activations.
struct BlockFactors {
  alignas(64) float d[16], min[16];
  alignas(64) int32_t mins[16][16];
};

// Small whole numbers as bf16, in the lower halves of lanes.
static inline I WholeAsBf16(I v) { return ShiftRightBy(BitsOf(ToFloat(v)), 16); }

template <typename Format>
static inline void FillFactors(const uint8_t* panel_block, BlockFactors* factors) {
  Store(factors->d, Format::D(panel_block));
  if constexpr (Format::kHasMin) {
    Store(factors->min, Mul(LoadHalves(panel_block + Format::P16::kMin), Set1(Format::kMinSign)));
    constexpr int kTimes = Format::kSubBlock / 16;
    for (int i = 0; i < kSumPairs<Format>; ++i) {
      const I pair = Format::MinPair(panel_block, i);
      const I mins[2] = {AndI(pair, SetI1(0xffff)), ShiftRightBy(pair, 16)};
      for (int j = 0; j < 2 * kTimes; ++j) {
        const I min = WholeAsBf16(mins[j / kTimes]);
        StoreI(factors->mins[2 * kTimes * i + j], OrB(min, ShiftLeftI<16>(min)));
      }
    }
  }
}

// The sums of 16 activations of all blocks of a group, [block][token][16]: pairs of bf16 that add
// up to one, since it has up to 11 bits and bf16 eight.
struct ActivationSums {
  alignas(64) int32_t pairs[kGroupBytes / 256][16];
};
static inline void FillActivationSums(const MatmulArgs& args, const TokenTiles& tokens,
                                      ActivationSums* sums) {
  int32_t(*to)[16] = sums->pairs;
  for (int64_t block = 0; block < args.k / 256; ++block) {
    const int16_t* from = args.x.bsum + tokens.first * args.x.bsum_stride + 16 * block;
    for (int t = 0; t < tokens.count; ++t, from += args.x.bsum_stride) {
      const I sum = LoadI16(from), low = AndI(sum, SetI1(31));
      StoreI(*to++, OrB(WholeAsBf16(low), AndI(BitsOf(ToFloat(SubI(sum, low))),
                                               SetI1(static_cast<int32_t>(0xffff0000)))));
    }
  }
}

// Of one or two tiles over a block: the sums of [tile][low, high], and of minimums.
struct BlockSums {
  alignas(64) int32_t digits[2][2][kTokensOfTile][16];
  alignas(64) float mins[2][kTokensOfTile][16];
};

// The image times kTiles tiles of tokens, whose activations begin at `q`; between() is called after
// each quarter.
template <typename Format, int kTiles, typename Between>
[[gnu::always_inline]] static inline void MultiplyDigits(const ScaledImage& image,
                                                         const int8_t* const (&q)[2],
                                                         int64_t q_stride, const Between& between,
                                                         BlockSums* sums) {
  constexpr bool kTwoDigits = !OneDigit<Format>(), kTwoTiles = kTiles == 2;
  constexpr bool kHighIsSigned = !kScalesUnsigned<Format>;
  ZeroTile<kSumTile>();
  if constexpr (kTwoDigits) ZeroTile<kSumTile + 1>();
  if constexpr (kTwoTiles) ZeroTile<kSumTile + 2>();
  if constexpr (kTwoTiles && kTwoDigits) ZeroTile<kSumTile + 3>();
  DT_UNROLL for (int quarter = 0; quarter < 4; ++quarter) {
    LoadTile<kWeightTile>(image.digits[0][16 * quarter], 64);
    LoadTile<kTokenTile>(q[0] + 64 * quarter, q_stride);
    DotTiles<kSumTile, kTokenTile, kWeightTile>();
    if constexpr (kTwoDigits) {
      LoadTile<kWeightTile + 1>(image.digits[1][16 * quarter], 64);
      DotTiles<kSumTile + 1, kTokenTile, kWeightTile + 1, kHighIsSigned>();
    }
    if constexpr (kTwoTiles) {
      LoadTile<kTokenTile + 1>(q[1] + 64 * quarter, q_stride);
      DotTiles<kSumTile + 2, kTokenTile + 1, kWeightTile>();
      if constexpr (kTwoDigits) {
        DotTiles<kSumTile + 3, kTokenTile + 1, kWeightTile + 1, kHighIsSigned>();
      }
    }
    between();
  }
  StoreTile<kSumTile>(sums->digits[0][0], 64);
  if constexpr (kTwoDigits) StoreTile<kSumTile + 1>(sums->digits[0][1], 64);
  if constexpr (kTwoTiles) StoreTile<kSumTile + 2>(sums->digits[1][0], 64);
  if constexpr (kTwoTiles && kTwoDigits) StoreTile<kSumTile + 3>(sums->digits[1][1], 64);
}
// Minimums times the sums of activations of kTiles tiles, which begin at `pairs`.
template <int kTiles>
[[gnu::always_inline]] static inline void MultiplyMins(const BlockFactors& factors,
                                                       const int32_t (*const (&pairs)[2])[16],
                                                       BlockSums* sums) {
  LoadTile<kWeightTile>(factors.mins, 64);
  ZeroTile<kSumTile>();
  LoadTile<kTokenTile>(pairs[0], 64);
  DotTilesBf16<kSumTile, kTokenTile, kWeightTile>();
  StoreTile<kSumTile>(sums->mins[0], 64);
  if constexpr (kTiles == 2) {
    ZeroTile<kSumTile + 2>();
    LoadTile<kTokenTile + 1>(pairs[1], 64);
    DotTilesBf16<kSumTile + 2, kTokenTile + 1, kWeightTile>();
    StoreTile<kSumTile + 2>(sums->mins[1], 64);
  }
}

// What FinishBlock256 does, for one of the tiles of `block`, of `count` tokens whose scales begin
// at `scales`; `known`: 0 if their sums begin with this block. ask() is called for each token.
template <typename Format, typename Ask>
[[gnu::always_inline]] static inline void FinishTokens(const BlockFactors& factors,
                                                       const BlockSums& block, int tile, int count,
                                                       const float* scales, int64_t stride,
                                                       __mmask16 known, const Ask& ask,
                                                       float (*sums)[16]) {
  const F d = Load(factors.d), min = Load(factors.min);
  for (int t = 0; t < count; ++t) {
    ask();
    I product = LoadI(block.digits[tile][0][t]);
    if constexpr (!OneDigit<Format>()) {
      const I high = LoadI(block.digits[tile][1][t]);
      product = AddI(product, ShiftLeftI<DigitShift<Format>()>(high));
    }
    const F scale = Set1(scales[t * stride]);
    F sum = Fma(ToFloat(product), Mul(d, scale), _mm512_maskz_loadu_ps(known, sums[t]));
    if constexpr (Format::kHasMin) sum = Fma(Load(block.mins[tile][t]), Mul(min, scale), sum);
    Store(sums[t], sum);
  }
}

// A block of a panel, ready for the tiles.
struct ReadyBlock {
  ScaledImage image;
  BlockFactors factors;
};
template <typename Format>
static void MakeReady(const uint8_t* panel_block, ReadyBlock* ready, LinesAhead* ahead) {
  FillScaledImage<Format>(panel_block, &ready->image, ahead);
  FillFactors<Format>(panel_block, &ready->factors);
}

// A block of a panel on its way: where it is, and where the block after it is made ready, or null.
struct BlockStep {
  int64_t index;  // in its panel
  const uint8_t* at;
  const ReadyBlock* ready;
  ReadyBlock* next;
};

// Adds the products of a block to the sums of tiles `tile` .. `tile` + kTiles - 1. kNext: makes the
// block after it ready while the tiles multiply.
template <typename Format, int kTiles, bool kNext>
[[gnu::noinline]] static void AddTiles(const MatmulArgs& args, const BlockStep& step, int tile,
                                       const ActivationSums& x_sums, TokenTiles* tokens) {
  constexpr int kBytes = Format::P16::kBytes;
  const int begin[2] = {tokens->Begin(tile), tokens->Begin(tile + kTiles - 1)};
  const Activations& x = args.x;
  const int8_t* q = x.q + tokens->first * x.q_stride + 256 * step.index;
  const float* d = x.d + tokens->first * x.d_stride + step.index;
  LinesAhead ahead = LinesAfter<kBytes>(step.at + kBytes);
  const auto ask = [&]() __attribute__((always_inline)) {
    if constexpr (kNext) ahead.Ask<kLinesOfPart<Format>>();
  };
  BlockSums sums;
  MultiplyDigits<Format, kTiles>(step.ready->image,
                                 {q + begin[0] * x.q_stride, q + begin[1] * x.q_stride}, x.q_stride,
                                 ask, &sums);
  if constexpr (Format::kHasMin) {
    const int32_t(*pairs)[16] = x_sums.pairs + step.index * tokens->count;
    MultiplyMins<kTiles>(step.ready->factors, {pairs + begin[0], pairs + begin[1]}, &sums);
  }
  if constexpr (kNext) MakeReady<Format>(step.at + kBytes, step.next, &ahead);
  DT_UNROLL for (int i = 0; i < kTiles; ++i) {
    FinishTokens<Format>(step.ready->factors, sums, i, tokens->rows, d + begin[i] * x.d_stride,
                         x.d_stride, step.index == 0 ? 0 : 0xffff, ask, tokens->sum[tile + i]);
  }
}

// All tiles times a block of panel `panel`.
template <typename Format>
static void AddBlock256(const MatmulArgs& args, int64_t panel, const BlockStep& step,
                        const ActivationSums& x_sums, TokenTiles* tokens) {
  const int tiles = tokens->tiles;
  for (int tile = 0; tile < tiles; tile += 2) {
    if (256 * (step.index + 1) == args.k) {
      for (int i = tile; i < tiles && i < tile + 2; ++i) PrefetchOutputs(args, *tokens, i, panel);
    }
    const auto add = [&]<int kTiles>() {
      if (tile + 2 >= tiles && step.next != nullptr) {
        AddTiles<Format, kTiles, true>(args, step, tile, x_sums, tokens);
      } else {
        AddTiles<Format, kTiles, false>(args, step, tile, x_sums, tokens);
      }
    };
    if (tile + 1 < tiles) {
      add.template operator()<2>();
    } else {
      add.template operator()<1>();
    }
  }
}

template <typename Format>
static void AmxPanels256(const MatmulArgs& args, int64_t begin, int64_t end, TokenTiles* tokens) {
  const int64_t num_blocks = args.k / 256;
  ActivationSums x_sums;
  if constexpr (Format::kHasMin) FillActivationSums(args, *tokens, &x_sums);
  ReadyBlock ready[2];
  const uint8_t* at = args.w + begin * num_blocks * Format::P16::kBytes;
  LinesAhead ahead = LinesAfter<Format::P16::kBytes>(at);
  MakeReady<Format>(at, &ready[0], &ahead);
  int now = 0;
  for (int64_t panel = begin; panel < end; ++panel) {
    for (int64_t block = 0; block < num_blocks; ++block, at += Format::P16::kBytes, now ^= 1) {
      const bool last = panel + 1 == end && block + 1 == num_blocks;
      const BlockStep step = {block, at, &ready[now], last ? nullptr : &ready[now ^ 1]};
      AddBlock256<Format>(args, panel, step, x_sums, tokens);
    }
    StoreSums(args, *tokens, panel);
  }
}

template <typename Format>
static void AmxMatmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  constexpr bool kSmall = Format::kBlock <= 32;
  TokenTiles tokens;
  for (int64_t first = 0; first < args.rows; first += tokens.count) {
    BeginTokens(first, args.rows - first, args.k, &tokens);
    ConfigureFor(kSmall ? Format::kBlock : 64, tokens.rows);
    if constexpr (kSmall) {
      AmxPanelsSmall<Format>(args, begin, end, &tokens);
    } else {
      AmxPanels256<Format>(args, begin, end, &tokens);
    }
  }
  ReleaseTiles();
}
