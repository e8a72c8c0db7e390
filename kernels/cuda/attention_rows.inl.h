// Attention of few rows, for vectors as models have them (dims are multiples of 16): a block has
// some heads of a task and one split of its keys, or all splits one after another. After
// attention.inl.h; every sum has the order that it has there.
//
// Keys, then values come into shared memory as they are stored, in stages of 8 KiB: two warps bring
// them, and three stages are under way while the other four work on one, across the softmax and
// from one split to the next. Of those a thread has the scores of two keys for all heads of the
// block, then a few neighbouring elements of the output for some of them. Numbers are widened where
// they are used.
//
// A stage of keys has 32 bytes of each key of the split, and the same elements of the queries. By
// dim (KvLayout::kHeads): for each block of the cache [element][token], then the tokens' scales of
// q8_0; by token: [key][32 bytes], whose halves are swapped for every other four keys, so that
// eight lanes find eight keys in banks of their own. A stage of values has some tokens of one
// block, and their scales behind them.

constexpr int kStages = 4;         // in shared memory; a power of two
constexpr int kStageWords = 2048;  // of keys or values
constexpr int kSliceWords = 272;   // of keys by dim: of a block, with scales or nothing
constexpr int kQueriesAt = 8 * kSliceWords;
constexpr int kScalesAt = kStageWords;  // of values
constexpr int kSlotWords = kQueriesAt + 256;
constexpr int kRowHeads = 8;          // of a block, at most
constexpr int kMostScaledDims = 768;  // of q8_0: for more, a stage's scales have no room
constexpr int kSplitBlocks = kKvSplitTokens / kKvBlockTokens;

// kMost: heads of a block, at most.
template <KvType kStored, int kMost, bool kTokens>
struct RowShape {
  static constexpr KvType kType = kStored;
  static constexpr int kHeads = kMost;
  static constexpr bool kByToken = kTokens;  // keys, too
  static constexpr int kBytes = kType == KvType::kF32 ? 4 : kType == KvType::kQ8_0 ? 1 : 2;
  static constexpr int kKeyDims = 32 / kBytes;  // of a stage
  // Of values: elements that the threads of a block have at once, and of one thread.
  static constexpr int kPassDims = kByToken ? 512 : 128;
  static constexpr int kThreadDims = kByToken ? 4 : 2;
  static constexpr int kRowWords = kPassDims * kBytes / 4;
  static constexpr int kStageTokens =
      kStageWords / kRowWords < kKvBlockTokens ? kStageWords / kRowWords : kKvBlockTokens;
};

// What follows from a launch's arguments alone: the host makes it.
struct RowPlan {
  int32_t first_task, first_split;
  bool in_parts;           // block y is a split from first_split on; else it is 0, and has all
  int32_t heads;           // of a block
  Divisor blocks_of_task;  // a block each for so many heads
  Divisor blocks_of_row;
  Divisor tasks_of_kv_head;  // of a row
  // Of the cache's blocks: where values begin, and the bytes of a head's vectors.
  int64_t values_at, key_bytes, value_bytes;
};

// What a block works on: heads from first_head on of a task, splits [first_split, past_split).
struct RowWork {
  AttentionTask task;
  int number;             // of the task
  const int32_t* blocks;  // of its sequence
  int first_head, heads;
  int first_split, past_split;
};

// Stages [first, past) of a split's values, which begin at its position 0.
struct StageRange {
  int first, past;
};
template <typename Shape>
DT_DEVICE StageRange ValueStages(const RowWork& work, int split) {
  const SplitKeys keys = KeysOf(work.task, split);
  return {keys.first % kKvSplitTokens / Shape::kStageTokens,
          (keys.past - 1) % kKvSplitTokens / Shape::kStageTokens + 1};
}
template <typename Shape>
DT_DEVICE int PassesOf(const AttentionArgs& args) {
  return (args.kv.shape.value_dim + Shape::kPassDims - 1) / Shape::kPassDims;
}

// --- Bringing stages.

constexpr int kBringThreads = 64;  // one for each 16 bytes of a block's keys in a stage

constexpr int kRowsThreads = kAttentionThreads + kBringThreads;

// A thread's number among those that bring stages; the others compute.
DT_DEVICE int Bringer() { return ThreadIndex() - kAttentionThreads; }

// What this thread brings, and of which stage next: of keys (pass -1), or of a pass of values.
struct Bringing {
  int split, pass, index;
  int past;  // of the indices of this pass
  // In block 0 of the cache.
  const uint8_t* keys;
  const uint8_t* values;
  const uint8_t* key_scales;  // of q8_0
  const uint8_t* value_scales;
  const float* queries;
  const uint8_t* in_split[kSplitBlocks];  // keys, of this split; null: of a block without a key
  const uint8_t* scales_in_split;
};

template <typename Shape>
DT_DEVICE void FindKeys(const AttentionArgs& args, const RowWork& work, Bringing& bring) {
  const SplitKeys keys = KeysOf(work.task, bring.split);
  const int first = keys.first / kKvBlockTokens, last = (keys.past - 1) / kKvBlockTokens;
  int32_t ids[kSplitBlocks];
  DT_UNROLL
  for (int i = 0; i < kSplitBlocks; ++i) {
    const int block = bring.split * kSplitBlocks + i;
    ids[i] = first <= block && block <= last ? work.blocks[block] : -1;
  }
  DT_UNROLL
  for (int i = 0; i < kSplitBlocks; ++i) {
    bring.in_split[i] = ids[i] < 0 ? nullptr : bring.keys + ids[i] * args.kv.block_bytes;
  }
  if constexpr (Shape::kType == KvType::kQ8_0 && !Shape::kByToken) {
    const int block = bring.split * kSplitBlocks + Bringer() / 4;
    const bool has = Bringer() < 4 * kSplitBlocks && first <= block && block <= last;
    bring.scales_in_split =
        has ? bring.key_scales + work.blocks[block] * args.kv.block_bytes : nullptr;
  }
}

// Where a block has fewer heads than Shape::kHeads, the queries of the last one are there again.
template <typename Shape>
DT_DEVICE Bringing BeginBringing(const AttentionArgs& args, const RowPlan& plan,
                                 const RowWork& work) {
  Bringing bring;
  bring.split = work.first_split;
  bring.pass = -1;
  bring.index = 0;
  bring.past = (args.kv.shape.key_dim + Shape::kKeyDims - 1) / Shape::kKeyDims;
  const int key_dim = args.kv.shape.key_dim;
  const int value_stride = (Shape::kByToken ? key_dim : args.kv.shape.value_dim) * Shape::kBytes;
  const uint8_t* const keys = args.kv.data + work.task.kv_head * plan.key_bytes;
  const uint8_t* const values =
      args.kv.data + plan.values_at + work.task.kv_head * plan.value_bytes;
  const int piece = Bringer();
  bring.keys =
      keys + (Shape::kByToken ? piece / 2 * key_dim * Shape::kBytes + piece % 2 * 16 : 16 * piece);
  constexpr int kPieces = Shape::kRowWords / 4;
  bring.values = values + Bringer() / kPieces * value_stride + Bringer() % kPieces * 16;
  if constexpr (Shape::kType == KvType::kQ8_0) {
    bring.key_scales = keys + kKvBlockTokens * key_dim + Bringer() % 4 * 16;
    bring.value_scales = values + kKvBlockTokens * value_stride + Bringer() * 16;
  }
  constexpr int kQueryPieces = Shape::kKeyDims / 4;
  const int head = work.first_head + Smaller(Bringer() / kQueryPieces, work.heads - 1);
  bring.queries = work.task.q + head * key_dim + Bringer() % kQueryPieces * 4;
  FindKeys<Shape>(args, work, bring);
  return bring;
}

// Whether a stage of keys, which the last one of q8_0 may not fill, has element d.
template <typename Shape>
DT_DEVICE bool HasElement(const AttentionArgs& args, int index, int d) {
  return Shape::kKeyDims <= 16 || index * Shape::kKeyDims + d < args.kv.shape.key_dim;
}

template <typename Shape, typename Ring>
DT_DEVICE void BringKeys(const AttentionArgs& args, const Bringing& bring, Ring& ring, int at) {
  const int piece = Bringer();
  const int token = piece / 2, half = piece % 2;
  constexpr int kStageBytes = Shape::kByToken ? 32 : 16 * kBringThreads;
  constexpr int kBlockWords = Shape::kByToken ? 8 * kKvBlockTokens : kSliceWords;
  const int to = at + (Shape::kByToken ? token * 8 + 4 * (half ^ (token / 4 % 2)) : 4 * piece);
  const int d = Shape::kByToken ? half * 16 / Shape::kBytes : piece / (2 * Shape::kBytes);
  const int from = bring.index * kStageBytes;
  if (HasElement<Shape>(args, bring.index, d)) {
    DT_UNROLL
    for (int i = 0; i < kSplitBlocks; ++i) {
      if (bring.in_split[i] == nullptr) continue;
      CopyAsync16(ring, to + i * kBlockWords, bring.in_split[i] + from);
    }
  }
  if constexpr (Shape::kType == KvType::kQ8_0 && !Shape::kByToken) {
    if (bring.scales_in_split != nullptr) {
      CopyAsync16(ring, at + Bringer() / 4 * kSliceWords + 256 + 4 * (Bringer() % 4),
                  bring.scales_in_split + bring.index * 2 * kKvBlockTokens);
    }
  }
  constexpr int kQueryThreads = Shape::kHeads * Shape::kKeyDims / 4;
  static_assert(kQueryThreads <= kBringThreads);
  if (Bringer() < kQueryThreads &&
      HasElement<Shape>(args, bring.index, 4 * Bringer() % Shape::kKeyDims)) {
    CopyAsync16(ring, at + kQueriesAt + 4 * Bringer(),
                bring.queries + bring.index * Shape::kKeyDims);
  }
}

template <typename Shape, typename Ring>
DT_DEVICE void BringValues(const AttentionArgs& args, const RowWork& work, const Bringing& bring,
                           Ring& ring, int at) {
  constexpr int kPieces = Shape::kRowWords / 4;  // of a token
  // Either several tokens at once, or a token in several sets of pieces.
  constexpr int kSets = kPieces > kBringThreads ? kPieces / kBringThreads : 1;
  constexpr int kTokensAtOnce = kPieces > kBringThreads ? 1 : kBringThreads / kPieces;
  constexpr int kSetDims = kBringThreads * 16 / Shape::kBytes;
  const int position = bring.split * kKvSplitTokens + bring.index * Shape::kStageTokens;
  const int slot = position % kKvBlockTokens;
  const int64_t block = work.blocks[position / kKvBlockTokens] * args.kv.block_bytes;
  const int dim = Shape::kByToken ? args.kv.shape.key_dim : args.kv.shape.value_dim;
  const int first_d = bring.pass * Shape::kPassDims;
  const int dims = args.kv.shape.value_dim - first_d - Bringer() % kPieces * 16 / Shape::kBytes;
  const uint8_t* const from = bring.values + block + (slot * dim + first_d) * Shape::kBytes;
  DT_UNROLL
  for (int set = 0; set < kSets; ++set) {
    if (set * kSetDims >= dims) break;
    DT_UNROLL
    for (int i = 0; i < Shape::kStageTokens / kTokensAtOnce; ++i) {
      CopyAsync16(ring, at + 4 * (Bringer() + (i * kSets + set) * kBringThreads),
                  from + (i * kTokensAtOnce * dim + set * kSetDims) * Shape::kBytes);
    }
  }
  if constexpr (Shape::kType == KvType::kQ8_0) {
    const int scales = (dim + kKvScaleElements - 1) / kKvScaleElements;
    for (int piece = 0; 8 * (Bringer() + piece) < Shape::kStageTokens * scales;
         piece += kBringThreads) {
      CopyAsync16(ring, at + kScalesAt + 4 * (Bringer() + piece),
                  bring.value_scales + block + 2 * slot * scales + 16 * piece);
    }
  }
}

// Behind the last stage of a pass.
template <typename Shape>
DT_DEVICE void NextPass(const AttentionArgs& args, const RowWork& work, Bringing& bring) {
  ++bring.pass;
  if (bring.pass == PassesOf<Shape>(args)) {
    bring.pass = -1;
    if (++bring.split >= work.past_split) return;
    bring.index = 0;
    bring.past = (args.kv.shape.key_dim + Shape::kKeyDims - 1) / Shape::kKeyDims;
    FindKeys<Shape>(args, work, bring);
    return;
  }
  const StageRange stages = ValueStages<Shape>(work, bring.split);
  bring.index = stages.first;
  bring.past = stages.past;
}

// Begins to bring the next stage to where stages of that number lie.
template <typename Shape, typename Ring>
DT_DEVICE void BringNext(const AttentionArgs& args, const RowWork& work, Bringing& bring,
                         int number, Ring& ring) {
  if (bring.split < work.past_split) {
    const int at = (number & (kStages - 1)) * kSlotWords;
    if (bring.pass < 0) {
      BringKeys<Shape>(args, bring, ring, at);
    } else {
      BringValues<Shape>(args, work, bring, ring, at);
    }
    if (++bring.index == bring.past) NextPass<Shape>(args, work, bring);
  }
  CommitCopies();
}

// Waits for stage `number`, and begins to bring what takes the place of the one before.
template <typename Shape, typename Ring>
DT_DEVICE void BringAhead(const AttentionArgs& args, const RowWork& work, Bringing& bring,
                          int number, Ring& ring) {
  WaitCopies<kStages - 2>();
  SyncBlockApart<kRowsThreads>();
  BringNext<Shape>(args, work, bring, number + kStages - 1, ring);
}

// All stages of a block, by those threads that bring them: they wait for the others where those
// wait, at each stage, and before and behind a split's softmax.
template <typename Shape, typename Ring>
DT_DEVICE void BringAll(const AttentionArgs& args, const RowPlan& plan, const RowWork& work,
                        Ring& ring) {
  Bringing bring = BeginBringing<Shape>(args, plan, work);
  const int key_stages = bring.past;
  for (int i = 0; i < kStages - 1; ++i) BringNext<Shape>(args, work, bring, i, ring);
  int number = 0;
  for (int split = work.first_split; split < work.past_split; ++split) {
    const StageRange values = ValueStages<Shape>(work, split);
    const int value_stages = (values.past - values.first) * PassesOf<Shape>(args);
    for (int i = -key_stages; i < value_stages; ++i) {
      if (i == 0) {
        SyncBlockApart<kRowsThreads>();
        SyncBlockApart<kRowsThreads>();
      }
      BringAhead<Shape>(args, work, bring, number++, ring);
    }
  }
}

// By the others: waits for the next stage, and returns where it is.
DT_DEVICE int NextStage(int& number) {
  SyncBlockApart<kRowsThreads>();
  return (number++ & (kStages - 1)) * kSlotWords;
}

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

// --- Softmax.

// Of one head, behind a split: of all splits so far (of this one, where a block has no other), and
// what the values' sums are merged and finished with.
struct alignas(16) RowState {
  float max, l;
  float keep, add;            // of the merge of this split
  float sink_keep, sink_add;  // of the sink's, behind the last one
  float divisor;
  float unused;
};

DT_DEVICE RowState StateAfter(const AttentionArgs& args, const RowWork& work, int split, int head,
                              SoftmaxState own, const RowState& before) {
  RowState state = {own.max, own.l, 0.0f, 0.0f, 0.0f, 0.0f, own.l, 0.0f};
  if (split != work.first_split) {
    const MergeFactors merged = MergeOf(before.max, before.l, own.max, own.l);
    state = {merged.max, merged.l, merged.keep, merged.add, 0.0f, 0.0f, merged.l, 0.0f};
  }
  if (args.sinks != nullptr && split + 1 == work.past_split) {
    const MergeFactors sink = MergeOf(state.max, state.l, args.sinks[head], 1.0f);
    state.sink_keep = sink.keep;
    state.sink_add = sink.add;
    state.divisor = sink.l;
  }
  return state;
}

// A warp for each head.
template <typename Shared, typename States>
DT_DEVICE void RowSoftmax(const AttentionArgs& args, const RowWork& work, int split, Shared& scores,
                          States& states) {
  for (int h = WarpIndex(); h < work.heads; h += kAttentionWarps) {
    const SoftmaxState own = Softmax(h * kKvSplitTokens, KeysOf(work.task, split), scores);
    if (Lane() != 0) continue;
    RowState before = {};
    if (split != work.first_split) before = states[h];
    states[h] = StateAfter(args, work, split, work.task.head + work.first_head + h, own, before);
  }
}

// --- Values.

// Adds p_j v_jd of kKeys keys for this thread's heads and elements. at: where their values are;
// key: the first one, of the split.
template <typename Shape, int kHeads, int kKeys, typename Ring, typename Shared>
DT_DEVICE void AddRowKeys(Ring& ring, int at, int token, int column, int d, int scales,
                          Shared& scores, int p_at, float (&sum)[kHeads][Shape::kThreadDims]) {
  constexpr int kDims = Shape::kThreadDims;
  float v[kKeys][kDims];
  DT_UNROLL
  for (int e = 0; e < kKeys; ++e) {
    ReadNumbers<Shape::kType>(ring, at + (token + e) * Shape::kRowWords, column, v[e]);
    if constexpr (Shape::kType == KvType::kQ8_0) {
      float scale[1];
      ReadNumbers<KvType::kF16>(ring, at + kScalesAt, (token + e) * scales + d / kKvScaleElements,
                                scale);
      for (int c = 0; c < kDims; ++c) v[e][c] = scale[0] * v[e][c];
    }
  }
  constexpr int kAtOnce = kKeys < 4 ? 1 : 4;
  DT_UNROLL
  for (int from = 0; from < kKeys; from += kAtOnce) {
    DT_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      Float4 p;
      if constexpr (kAtOnce == 4) {
        p = ReadShared<Float4>(scores, p_at + h * kKvSplitTokens + from);
      } else {
        p.v[0] = scores[p_at + h * kKvSplitTokens];
      }
      DT_UNROLL
      for (int e = 0; e < kAtOnce; ++e) {
        DT_UNROLL
        for (int c = 0; c < kDims; ++c) sum[h][c] = Fma(p.v[e], v[from + e][c], sum[h][c]);
      }
    }
  }
}

// Adds those of a stage's tokens [from, past), which begin at key `first` of the split.
template <typename Shape, int kHeads, typename Ring, typename Shared>
DT_DEVICE void AddStage(Ring& ring, int at, int first, int from, int past, int column, int d,
                        int scales, Shared& scores, int p_at,
                        float (&sum)[kHeads][Shape::kThreadDims]) {
  constexpr int kWished = kHeads * Shape::kThreadDims >= 16 ? 8 : 16;
  constexpr int kMany = Shape::kStageTokens < kWished ? Shape::kStageTokens : kWished;
  const auto add = [&]<int kKeys>(int token) {
    AddRowKeys<Shape, kHeads, kKeys>(ring, at, token, column, d, scales, scores,
                                     p_at + first + token, sum);
  };
  int token = from;
  for (; token < past && token % 4 != 0; ++token) add.template operator()<1>(token);
  for (; token + kMany <= past; token += kMany) add.template operator()<kMany>(token);
  for (; token + 4 <= past; token += 4) add.template operator()<4>(token);
  for (; token < past; ++token) add.template operator()<1>(token);
}

// A head's sum of a split becomes part of what the splits before it gave, and the output behind the
// last one.
DT_DEVICE void StoreMerged(const AttentionArgs& args, const RowWork& work, int split,
                           const RowState& state, float sum, float* out) {
  float total = sum;
  if (split != work.first_split) total = Fma(sum, state.add, *out * state.keep);
  if (split + 1 == work.past_split) {
    if (args.sinks != nullptr) total = Fma(0.0f, state.sink_add, total * state.sink_keep);
    total = total / state.divisor;
  }
  *out = total;
}

// The values of a split: groups of threads have the elements of a pass, each group its own heads.
// in_parts: they become a part, else the output.
template <typename Shape, typename Ring, typename Shared, typename States>
DT_DEVICE void RowValues(const AttentionArgs& args, const RowWork& work, int split, bool in_parts,
                         int& stage, Ring& ring, Shared& scores, States& states) {
  constexpr int kDims = Shape::kThreadDims;
  constexpr int kGroups = kAttentionThreads * kDims / Shape::kPassDims;
  constexpr int kOwn = (Shape::kHeads + kGroups - 1) / kGroups;
  const int value_dim = args.kv.shape.value_dim;
  const int first_head = ThreadIndex() / (kAttentionThreads / kGroups) * kOwn;
  const int column = ThreadIndex() % (kAttentionThreads / kGroups) * kDims;
  const SplitKeys keys = KeysOf(work.task, split);
  const StageRange stages = ValueStages<Shape>(work, split);
  const int vector_dim = Shape::kByToken ? args.kv.shape.key_dim : value_dim;
  const int scales = (vector_dim + kKvScaleElements - 1) / kKvScaleElements;
  for (int pass = 0; pass < PassesOf<Shape>(args); ++pass) {
    const int d = pass * Shape::kPassDims + column;
    const bool has = d < value_dim && first_head < work.heads;
    float sum[kOwn][kDims] = {};
    for (int index = stages.first; index < stages.past; ++index) {
      const int at = NextStage(stage);
      const int first = index * Shape::kStageTokens;
      const int position = split * kKvSplitTokens + first;
      if (has) {
        AddStage<Shape, kOwn>(ring, at, first, Larger(keys.first - position, 0),
                              Smaller(keys.past - position, Shape::kStageTokens), column, d, scales,
                              scores, first_head * kKvSplitTokens, sum);
      }
    }
    if (!has) continue;
    const int head = work.first_head + first_head;
    float* out = in_parts ? PartOf(args, work.number, split, head) + kPartSum + d
                          : work.task.out + head * value_dim + d;
    const int64_t stride = in_parts ? AttentionPartSize(args.kv.shape) : value_dim;
    DT_UNROLL
    for (int h = 0; h < kOwn; ++h) {
      if (first_head + h >= work.heads) break;
      const RowState state = states[first_head + h];
      DT_UNROLL
      for (int c = 0; c < kDims; ++c) {
        if (in_parts) {
          out[h * stride + c] = sum[h][c];
        } else {
          StoreMerged(args, work, split, state, sum[h][c], out + h * stride + c);
        }
      }
    }
  }
}

// --- The kernel.

DT_DEVICE RowWork WorkOf(const AttentionArgs& args, const RowPlan& plan) {
  const int index = plan.first_task * plan.blocks_of_task.by + BlockIndex();
  const int row = index / plan.blocks_of_row;
  const int in_row = index - row * plan.blocks_of_row.by;
  const int of_row = in_row / plan.blocks_of_task;
  RowWork work;
  work.task = TaskAt(args, row, of_row * args.heads_per_task, of_row / plan.tasks_of_kv_head);
  work.number = plan.first_task + BlockIndex() / plan.blocks_of_task;
  work.blocks = work.task.sequence->blocks;
  work.first_head = (in_row - of_row * plan.blocks_of_task.by) * plan.heads;
  work.heads = Smaller(plan.heads, args.heads_per_task - work.first_head);
  work.first_split = work.task.first_key / kKvSplitTokens;
  work.past_split = (work.task.num_keys - 1) / kKvSplitTokens + 1;
  if (plan.in_parts) {
    const int split = plan.first_split + BlockIndexY();
    work.first_split = Larger(work.first_split, split);
    work.past_split = Smaller(work.past_split, split + 1);
  }
  return work;
}

// Sequences of at least `tile_rows` rows are AttentionTileKernel's.
template <KvType kType, int kHeads, bool kByToken>
DT_KERNEL void AttentionRowsKernel(AttentionArgs args, RowPlan plan, int tile_rows) {
  using Shape = RowShape<kType, kHeads, kByToken>;
  static_assert(kHeads <= kRowHeads && kHeads * Shape::kKeyDims <= kSlotWords - kQueriesAt);
  DT_SHARED(uint32_t, ring, kStages * kSlotWords);
  DT_SHARED(float, scores, kHeads* kKvSplitTokens);
  DT_SHARED(RowState, states, kHeads);
  const RowWork work = WorkOf(args, plan);
  if (work.heads <= 0 || work.first_split >= work.past_split) return;
  if (work.task.sequence->num_rows >= tile_rows) return;
  if (ThreadIndex() >= kAttentionThreads) return BringAll<Shape>(args, plan, work, ring);
  int stage = 0;
  for (int split = work.first_split; split < work.past_split; ++split) {
    RowScores<Shape>(args, work, split, stage, ring, scores);
    SyncBlockApart<kRowsThreads>();
    RowSoftmax(args, work, split, scores, states);
    SyncBlockApart<kRowsThreads>();
    if (plan.in_parts && ThreadIndex() < work.heads) {
      const RowState state = states[ThreadIndex()];
      float* const part = PartOf(args, work.number, split, work.first_head + ThreadIndex());
      part[0] = state.max;
      part[1] = state.l;
    }
    RowValues<Shape>(args, work, split, plan.in_parts, stage, ring, scores, states);
  }
}
