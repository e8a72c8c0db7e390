// Scores of few rows (attention_rows.inl.h), out of stages of keys: numbers are widened where they
// are used. After attention_stages.inl.h.

// --- Reading numbers as they are stored.

template <int kWords>
struct alignas(4 * kWords) Words {
  uint32_t v[kWords];
};

DT_DEVICE float HalfOf(uint32_t word, int i) {
  return HalfToFloat(static_cast<uint16_t>(word >> (16 * i)));
}
DT_DEVICE float ByteOf(uint32_t word, int i) {
  return static_cast<float>(static_cast<int8_t>(word >> (8 * i)));
}

// Number i of those that `words` has, without its scale.
template <KvType kType, int kWords>
DT_DEVICE float NumberOf(const Words<kWords>& words, int i) {
  if constexpr (kType == KvType::kF32) {
    return FloatOf(words.v[i]);
  } else if constexpr (kType == KvType::kF16) {
    return HalfOf(words.v[i / 2], i % 2);
  } else if constexpr (kType == KvType::kBF16) {
    return FloatOf(i % 2 == 0 ? words.v[i / 2] << 16 : words.v[i / 2] & 0xffff0000u);
  } else {
    return ByteOf(words.v[i / 4], i % 4);
  }
}

// Numbers [index, index + kCount) of those that lie from ring[at] on, without their scale; kCount
// divides index.
template <KvType kType, int kCount, typename Ring>
DT_DEVICE void ReadNumbers(Ring& ring, int at, int index, float (&numbers)[kCount]) {
  constexpr int kBytes = kType == KvType::kF32 ? 4 : kType == KvType::kQ8_0 ? 1 : 2;
  if constexpr (kCount * kBytes < 4) {
    Words<1> word = {{ring[at + index * kBytes / 4]}};
    word.v[0] >>= index * kBytes % 4 * 8;
    for (int i = 0; i < kCount; ++i) numbers[i] = NumberOf<kType>(word, i);
  } else {
    constexpr int kWords = kCount * kBytes / 4;
    const auto words = ReadShared<Words<kWords>>(ring, at + index * kBytes / 4);
    DT_UNROLL
    for (int i = 0; i < kCount; ++i) numbers[i] = NumberOf<kType>(words, i);
  }
}

template <typename Ring>
DT_DEVICE Float4 ReadQueries(Ring& ring, int at) {
  const auto words = ReadShared<Words<4>>(ring, at);
  return {{FloatOf(words.v[0]), FloatOf(words.v[1]), FloatOf(words.v[2]), FloatOf(words.v[3])}};
}

// --- Scores.

// Of a thread's two keys, by dim neighbours; by token one of each half of the split. Where only one
// half has keys, that one is key 0, and the only one. They count from the split's first position.
struct ThreadKeys {
  int key[2];
  int count;
};
template <typename Shape>
DT_DEVICE ThreadKeys ThreadKeysOf(SplitKeys keys) {
  const int first = keys.first % kKvSplitTokens / kKvBlockTokens;
  const int last = (keys.past - 1) % kKvSplitTokens / kKvBlockTokens;
  const auto has = [&](int key) {
    return key / kKvBlockTokens >= first && key / kKvBlockTokens <= last;
  };
  if constexpr (Shape::kByToken) {
    const int low = ThreadIndex(), high = ThreadIndex() + kKvSplitTokens / 2;
    return {{has(low) ? low : high, high}, (has(low) ? 1 : 0) + (has(high) ? 1 : 0)};
  } else {
    return {{2 * ThreadIndex(), 2 * ThreadIndex() + 1}, has(2 * ThreadIndex()) ? 2 : 0};
  }
}

// Adds a stage's products, of keys by dim.
template <typename Shape, typename Ring>
DT_DEVICE void AddByDim(Ring& ring, int at, int dims, float (&sum)[Shape::kHeads][2]) {
  constexpr int kUnrolled = Shape::kKeyDims < 16 ? Shape::kKeyDims : 16;
  constexpr int kRowWords = kKvBlockTokens * Shape::kBytes / 4;
  const int keys_at = at + ThreadIndex() / 16 * kSliceWords;
  const int pair = 2 * (ThreadIndex() % 16);
  float scale[2] = {};
  if constexpr (Shape::kType == KvType::kQ8_0) {
    ReadNumbers<KvType::kF16>(ring, keys_at + 256, pair, scale);
  }
  for (int from = 0; from < dims; from += kUnrolled) {
    DT_UNROLL
    for (int d = from; d < from + kUnrolled; d += 4) {
      float k[4][2];
      DT_UNROLL
      for (int e = 0; e < 4; ++e) {
        ReadNumbers<Shape::kType>(ring, keys_at + (d + e) * kRowWords, pair, k[e]);
        if constexpr (Shape::kType == KvType::kQ8_0) {
          for (int j = 0; j < 2; ++j) k[e][j] = scale[j] * k[e][j];
        }
      }
      DT_UNROLL
      for (int h = 0; h < Shape::kHeads; ++h) {
        const Float4 q = ReadQueries(ring, at + kQueriesAt + h * Shape::kKeyDims + d);
        DT_UNROLL
        for (int e = 0; e < 4; ++e) {
          DT_UNROLL
          for (int j = 0; j < 2; ++j) sum[h][j] = Fma(q.v[e], k[e][j], sum[h][j]);
        }
      }
    }
  }
}

// The same of kKeys keys by token.
template <typename Shape, int kKeys, typename Ring>
DT_DEVICE void AddByToken(Ring& ring, int at, int dims, const ThreadKeys& keys,
                          const float (&scale)[2], float (&sum)[Shape::kHeads][2]) {
  constexpr int kHalf = Shape::kKeyDims / 2;
  DT_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (half * kHalf >= dims) break;
    Words<4> words[kKeys];
    DT_UNROLL
    for (int j = 0; j < kKeys; ++j) {
      words[j] =
          ReadShared<Words<4>>(ring, at + keys.key[j] * 8 + 4 * (half ^ (keys.key[j] / 4 % 2)));
    }
    DT_UNROLL
    for (int d = 0; d < kHalf; d += 4) {
      float k[4][kKeys];
      DT_UNROLL
      for (int e = 0; e < 4; ++e) {
        DT_UNROLL
        for (int j = 0; j < kKeys; ++j) {
          k[e][j] = NumberOf<Shape::kType>(words[j], d + e);
          if constexpr (Shape::kType == KvType::kQ8_0) k[e][j] = scale[j] * k[e][j];
        }
      }
      DT_UNROLL
      for (int h = 0; h < Shape::kHeads; ++h) {
        const Float4 q =
            ReadQueries(ring, at + kQueriesAt + h * Shape::kKeyDims + half * kHalf + d);
        DT_UNROLL
        for (int e = 0; e < 4; ++e) {
          DT_UNROLL
          for (int j = 0; j < kKeys; ++j) sum[h][j] = Fma(q.v[e], k[e][j], sum[h][j]);
        }
      }
    }
  }
}

// The scales of a thread's keys by token, for elements from first_d on.
template <typename Shape>
DT_DEVICE void LoadScales(const AttentionArgs& args, const RowWork& work, int split, int first_d,
                          const ThreadKeys& keys, float (&scale)[2]) {
  DT_UNROLL
  for (int j = 0; j < 2; ++j) {
    if (j >= keys.count) break;
    const int32_t block = work.blocks[split * kSplitBlocks + keys.key[j] / kKvBlockTokens];
    const KvPart part = KeyPart(args.kv, block, work.task.kv_head);
    scale[j] =
        HalfToFloat(LoadVector<uint16_t>(ScaleOf(part, keys.key[j] % kKvBlockTokens, first_d)));
  }
}

// scores[h][key] of the block's heads and the split's keys; of those that no query sees, some.
template <typename Shape, typename Ring, typename Shared>
DT_DEVICE void RowScores(const AttentionArgs& args, const RowWork& work, int split, int& stage,
                         Ring& ring, Shared& scores) {
  const ThreadKeys keys = ThreadKeysOf<Shape>(KeysOf(work.task, split));
  float sum[Shape::kHeads][2] = {};
  for (int first_d = 0; first_d < args.kv.shape.key_dim; first_d += Shape::kKeyDims) {
    float scale[2] = {};
    if constexpr (Shape::kByToken && Shape::kType == KvType::kQ8_0) {
      LoadScales<Shape>(args, work, split, first_d, keys, scale);
    }
    const int at = NextStage(stage);
    const int dims = Smaller(Shape::kKeyDims, args.kv.shape.key_dim - first_d);
    if constexpr (Shape::kByToken) {
      if (keys.count == 2) {
        AddByToken<Shape, 2>(ring, at, dims, keys, scale, sum);
      } else if (keys.count == 1) {
        AddByToken<Shape, 1>(ring, at, dims, keys, scale, sum);
      }
    } else if (keys.count == 2) {
      AddByDim<Shape>(ring, at, dims, sum);
    }
  }
  DT_UNROLL
  for (int h = 0; h < Shape::kHeads; ++h) {
    DT_UNROLL
    for (int j = 0; j < 2; ++j) {
      if (j < keys.count) scores[h * kKvSplitTokens + keys.key[j]] = sum[h][j] * args.scale;
    }
  }
}
