// Blocks of 256 for AMX: weights that have been multiplied with the scales of their sub-blocks.
// Included once, inside the instruction set's namespace, after unpack.inl.h.
//
// A tile sums 64 products before anything can be done with a sum, and sub-blocks with scales of
// their own are shorter. So scales go into the weights: scale * q = low + 2^kShift * high, both of
// them bytes, and a block's sum is that of low and that of high, all integers and exact:
//
// - scales without sign (Q2_K, Q4_K, Q5_K): as many bits of the scale as a byte has room for,
//   scale = low_bits + 2^kShift * high_bits, so that one multiplication of 16 bits is two of bytes.
// - all others: q without its offset, the product in 16 bits, its two halves.

template <typename Format>
constexpr bool kScalesUnsigned = requires {
  Format::kScaleBits;
};

template <typename Format>
constexpr int DigitShift() {
  if constexpr (kScalesUnsigned<Format>) {
    static_assert(Format::kOffset == 0);
    int bits = Format::kScaleBits;
    while ((Format::kMaxWeight << bits) > 256) bits = (bits + 1) / 2;
    return bits;
  } else {
    return 8;
  }
}
template <typename Format>
constexpr bool OneDigit() {
  if constexpr (kScalesUnsigned<Format>) return DigitShift<Format>() == Format::kScaleBits;
  return false;
}

// True weights, with their signs: what Unpack gives without the offset.
template <int kOffset>
static inline B WithoutOffset(B bytes) {
  return _mm512_sub_epi8(bytes, _mm512_set1_epi8(static_cast<char>(kOffset)));
}

// [low, high][4 k][16 rows x 4 k]
struct ScaledImage {
  alignas(64) uint8_t digits[2][64][64];
};

// The low byte of each lane as bytes kFirst and kSecond of it, others 0.
template <int kFirst, int kSecond>
static inline __m512i SpreadByte(I lanes) {
  uint32_t from = 0x80808080u;
  from &= ~(0xffu << (8 * kFirst)) & ~(0xffu << (8 * kSecond));
  const __m128i lane = _mm_set_epi32(12, 8, 4, 0);
  const __m128i spread = _mm_or_si128(
      _mm_mullo_epi32(lane, _mm_set1_epi32((1 << (8 * kFirst)) | (1 << (8 * kSecond)))),
      _mm_set1_epi32(static_cast<int32_t>(from)));
  return _mm512_shuffle_epi8(lanes, _mm512_broadcast_i32x4(spread));
}

// Digits of scale * q, q from 0 on: `scale` is twice in a lane.
template <typename Format>
[[gnu::always_inline]] static inline void StoreUnsignedDigits(B q, I scale, int group,
                                                              ScaledImage* image) {
  constexpr int kShift = DigitShift<Format>();
  const I low = AndI(scale, SetI1(((1 << kShift) - 1) * 0x10001));
  StoreB(image->digits[0][group], MulI16(q, low));
  if constexpr (!OneDigit<Format>()) {
    StoreB(image->digits[1][group], MulI16(q, _mm512_srli_epi16(scale, kShift)));
  }
}
// Digits of scale * (byte - kOffset): `scale` is 256 times the scale, twice in a lane.
template <int kOffset>
[[gnu::always_inline]] static inline void StoreSignedDigits(B byte, I scale, int group,
                                                            ScaledImage* image) {
  const B q = WithoutOffset<kOffset>(byte);
  const __mmask64 odd_bytes = 0xaaaaaaaaaaaaaaaa;
  const I even = _mm512_mulhi_epi16(_mm512_slli_epi16(q, 8), scale);
  const I odd = _mm512_mulhi_epi16(_mm512_maskz_mov_epi8(odd_bytes, q), scale);
  StoreB(image->digits[0][group],
         _mm512_mask_blend_epi8(odd_bytes, even, _mm512_slli_epi16(odd, 8)));
  StoreB(image->digits[1][group],
         _mm512_mask_blend_epi8(odd_bytes, _mm512_srli_epi16(even, 8), odd));
}

// Lines of memory that are asked for a few at a time, between other things: more at once than the
// first-level cache has buffers hold up everything else.
struct LinesAhead {
  const uint8_t *at, *end;
  // As many of the next kLines as there are.
  template <int kLines>
  [[gnu::always_inline]] void Ask() {
    DT_UNROLL for (int i = 0; i < kLines; ++i) {
      if (at < end) __builtin_prefetch(at, 0, 2);
      at += 64;
    }
  }
};
// Of a block, for each of 4 steps of tiles, of 8 chunks and of 8 tokens: about a twentieth.
template <typename Format>
constexpr int kLinesOfPart = (Format::P16::kBytes / 64 + 19) / 20;
// The block that is kPrefetchAhead after this one.
template <int kBytes>
static inline LinesAhead LinesAfter(const uint8_t* block) {
  return {block + kPrefetchAhead, block + kPrefetchAhead + kBytes};
}

template <typename Format, int kChunk>
[[gnu::always_inline]] static inline void FillScaledChunk(const uint8_t* panel_block,
                                                          ScaledImage* image) {
  constexpr int kSubs = 32 / Format::kSubBlock, kGroups = 8 / kSubs;
  B w[8];
  Format::template Unpack<kChunk>(panel_block, w);
  DT_UNROLL for (int s = 0; s < kSubs; ++s) {
    const I scale = Format::Scale(panel_block, kChunk * kSubs + s);
    DT_UNROLL for (int g = kGroups * s; g < kGroups * (s + 1); ++g) {
      if constexpr (kScalesUnsigned<Format>) {
        StoreUnsignedDigits<Format>(w[g], SpreadByte<0, 2>(scale), 8 * kChunk + g, image);
      } else {
        StoreSignedDigits<Format::kOffset>(w[g], SpreadByte<1, 3>(scale), 8 * kChunk + g, image);
      }
    }
  }
}
template <typename Format>
[[gnu::always_inline]] static inline void FillScaledImage(const uint8_t* panel_block,
                                                          ScaledImage* image, LinesAhead* ahead) {
  const auto fill = [&](auto chunk) __attribute__((always_inline)) {
    ahead->Ask<kLinesOfPart<Format>>();
    FillScaledChunk<Format, decltype(chunk)::kValue>(panel_block, image);
  };
  ForFour([&](auto half) __attribute__((always_inline)) {
    fill(Constant<2 * decltype(half)::kValue>());
    fill(Constant<2 * decltype(half)::kValue + 1>());
  });
}
