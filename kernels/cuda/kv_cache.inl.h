// The KV cache: what a token's keys and values become when they are stored, and how they are read.

struct alignas(8) Halves4 {
  uint16_t v[4];
};
struct alignas(4) Bytes4 {
  int8_t v[4];
};

DT_DEVICE float LoadElement(const KvPart& part, int slot, int64_t d) {
  const int64_t i = ElementIndex(part, slot, d);
  switch (part.type) {
    case KvType::kF32:
      return LoadVector<float>(part.data + 4 * i);
    case KvType::kF16:
      return HalfToFloat(LoadVector<uint16_t>(part.data + 2 * i));
    case KvType::kBF16:
      return FloatOf(static_cast<uint32_t>(LoadVector<uint16_t>(part.data + 2 * i)) << 16);
    case KvType::kQ8_0:
      break;
  }
  const float scale = HalfToFloat(LoadVector<uint16_t>(ScaleOf(part, slot, d)));
  return scale * static_cast<float>(static_cast<int8_t>(part.data[i]));
}

// Four neighbours of type kType: elements d .. d + 3 of one token where vectors lie by token, whose
// dim is a multiple of 4; else element d of tokens slot .. slot + 3. What counts the neighbours is
// a multiple of 4. LoadFour loads them, Widen makes f32 of them: many loads are under way at once.
template <KvType kType>
struct Four {
  Halves4 halves;
};
template <>
struct Four<KvType::kF32> {
  Float4 floats;
};
template <>
struct Four<KvType::kQ8_0> {
  Bytes4 q;
  Halves4 scales;  // by token: the first one is that of all
};

template <KvType kType>
DT_DEVICE Four<kType> LoadFour(const KvPart& part, int slot, int d) {
  const auto index = static_cast<int32_t>(ElementIndex(part, slot, d));
  if constexpr (kType == KvType::kF32) {
    return {LoadVector<Float4>(part.data + 4 * index)};
  } else if constexpr (kType == KvType::kQ8_0) {
    Four<kType> four = {LoadVector<Bytes4>(part.data + index), {}};
    const uint8_t* scale = ScaleOf(part, slot, d);
    if (part.by_token) {
      four.scales.v[0] = LoadVector<uint16_t>(scale);
    } else {
      four.scales = LoadVector<Halves4>(scale);
    }
    return four;
  } else {
    return {LoadVector<Halves4>(part.data + 2 * index)};
  }
}

template <KvType kType>
DT_DEVICE Float4 Widen(const Four<kType>& four, bool by_token) {
  Float4 wide;
  DT_UNROLL
  for (int i = 0; i < 4; ++i) {
    if constexpr (kType == KvType::kF32) {
      wide.v[i] = four.floats.v[i];
    } else if constexpr (kType == KvType::kF16) {
      wide.v[i] = HalfToFloat(four.halves.v[i]);
    } else if constexpr (kType == KvType::kBF16) {
      wide.v[i] = FloatOf(static_cast<uint32_t>(four.halves.v[i]) << 16);
    } else {
      wide.v[i] = HalfToFloat(four.scales.v[by_token ? 0 : i]) * static_cast<float>(four.q.v[i]);
    }
  }
  return wide;
}

DT_DEVICE uint16_t FloatToBf16(float v) {
  const uint32_t bits = BitsOf(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

DT_DEVICE bool IsFinite(float v) { return (BitsOf(v) & 0x7fffffffu) < 0x7f800000u; }
DT_DEVICE float Magnitude(float v) { return FloatOf(BitsOf(v) & 0x7fffffffu); }

DT_DEVICE void StoreHalf(uint8_t* to, uint16_t half) { *reinterpret_cast<uint16_t*>(to) = half; }

// One scale's elements, a lane for each; `has`: this lane's is one of the vector's.
DT_DEVICE void StoreScaled(const KvPart& part, int slot, int d, float x, bool has) {
  const float magnitude = has && Magnitude(x) == Magnitude(x) ? Magnitude(x) : 0.0f;
  const float amax = WarpMax(magnitude);
  const bool finite = Ballot(has && !IsFinite(x)) == 0;
  const uint16_t half = finite ? FloatToHalf(amax / 127.0f) : uint16_t{0x7e00};
  if (!has) return;
  if (d % kKvScaleElements == 0) StoreHalf(ScaleOf(part, slot, d), half);
  const float scale = HalfToFloat(half);
  float q = 0.0f;
  if (scale > 0.0f && IsFinite(scale)) q = RoundToNearestEven(x * (1.0f / scale));
  q = q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q;
  part.data[ElementIndex(part, slot, d)] = static_cast<uint8_t>(static_cast<int8_t>(q));
}

DT_DEVICE void StoreElement(const KvPart& part, int slot, int d, float x) {
  const int64_t i = ElementIndex(part, slot, d);
  if (part.type == KvType::kF32) {
    *reinterpret_cast<float*>(part.data + 4 * i) = x;
  } else {
    StoreHalf(part.data + 2 * i, part.type == KvType::kF16 ? FloatToHalf(x) : FloatToBf16(x));
  }
}

// A warp stores one token's vector; returns whether what this lane stored is finite.
DT_DEVICE bool StoreVector(const KvPart& part, int slot, const float* x) {
  bool finite = true;
  for (int first = 0; first < part.dim; first += kWarp) {
    const int d = first + Lane();
    const bool has = d < part.dim;
    const float v = has ? x[d] : 0.0f;
    finite = finite && Magnitude(v) < StoredLimit(part.type);
    if (part.type == KvType::kQ8_0) {
      StoreScaled(part, slot, d, v, has);
    } else if (has) {
      StoreElement(part, slot, d, v);
    }
  }
  return finite;
}

// A warp stores one head of a row. *flag is raised where something stored is not finite.
DT_DEVICE void AppendHead(const KvAppendArgs& args, int64_t row, int head, int32_t* flag) {
  const KvShape& shape = args.kv.shape;
  const SequenceRows& s = *FindSequence(args.sequences, args.num_sequences, row);
  const int position = s.position + static_cast<int>(row - s.row_begin);
  const int32_t block = s.blocks[position / kKvBlockTokens];
  const int slot = position % kKvBlockTokens;
  const float* k = args.k + row * args.k_stride + int64_t{head} * shape.key_dim;
  bool finite = StoreVector(KeyPart(args.kv, block, head), slot, k);
  if (shape.layout != KvLayout::kLatent) {
    const float* v = args.v + row * args.v_stride + int64_t{head} * shape.value_dim;
    finite = StoreVector(ValuePart(args.kv, block, head), slot, v) && finite;
  }
  if (!finite) RaiseFlag(flag);
}

// A warp for each row and KV head.
DT_KERNEL void KvAppendKernel(KvAppendArgs args, int64_t begin, int64_t end, int32_t* flag) {
  const int64_t row = begin + GlobalWarp() / args.kv.shape.num_heads;
  if (row >= end) return;
  AppendHead(args, row, static_cast<int>(GlobalWarp() % args.kv.shape.num_heads), flag);
}

DT_DEVICE void RotateHead(const RopeArgs& args, int64_t row, int head) {
  for (int i = Lane(); i < args.rope_dim / 2; i += kWarp) RotatePair(args, row, head, i);
}

// A warp for each head of a row's queries, and for each KV head, which is stored when it is
// rotated.
DT_KERNEL void RopeAppendKernel(RopeArgs q, RopeArgs k, KvAppendArgs append, int64_t begin,
                                int64_t end, int32_t* flag) {
  const int vectors = q.num_heads + append.kv.shape.num_heads;
  const int64_t row = begin + GlobalWarp() / vectors;
  if (row >= end) return;
  const int vector = static_cast<int>(GlobalWarp() % vectors);
  if (vector < q.num_heads) return RotateHead(q, row, vector);
  RotateHead(k, row, vector - q.num_heads);
  SyncWarp();
  AppendHead(append, row, vector - q.num_heads, flag);
}
