// Stages of keys and values for attention of few rows (attention_rows.inl.h): what is in shared
// memory at a time, and the two warps of a block that bring it there. After attention.inl.h.
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
