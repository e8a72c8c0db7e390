// Causal attention over the KV cache; kernels/ref/attention.cc says what it computes.
// Included once, inside the instruction set's namespace, after attention_tiles.inl.h.
//
// All queries (step rows x heads of a group) that read one KV head work through the splits
// together.

// Whether the kernels read the part as it is stored, for so many queries. Where many share a block
// it is widened to f32 once, unless that is done as well on the way.
static inline bool ReadAsStored(const KvPart& part, int queries) {
  if (part.type == KvType::kF32 || queries <= kFewQueries) return true;
  return part.type != KvType::kQ8_0 && processor_converts_aside;
}

// The scales of a part of kQ8_0, in the order in which they are stored; asks for those of the part
// whose bytes begin at `ahead`, if any: its bytes alone are asked for as this one's are read.
static inline void WidenScales(const KvPart& part, const uint8_t* ahead, float* to) {
  const int blocks = (part.dim + kKvScaleElements - 1) / kKvScaleElements;
  const uint8_t* from = ScaleOf(part, 0, 0);
  if (ahead != nullptr) AskFor(ahead, from - part.data, 2 * blocks * kKvBlockTokens);
  for (int i = 0; i < blocks * kKvBlockTokens; i += 16) {
    Store(to + i, F16Elements::Get(from + 2 * i));
  }
}

// Keys of a split are taken from the first one's block that any query sees.
static inline int FirstBlockKey(const QueryBatch& batch, int split) {
  const int first = batch.first_key[0] / kKvBlockTokens * kKvBlockTokens;
  return first > split ? first : split;
}

// fn.template operator()<Elements>() for a type that has elements of its own.
template <typename Fn>
static inline void WithElements(KvType type, const Fn& fn) {
  switch (type) {
    case KvType::kF16:
      return fn.template operator()<F16Elements>();
    case KvType::kBF16:
      return fn.template operator()<Bf16Elements>();
    case KvType::kQ8_0:
      return fn.template operator()<ScaledBytes>();
    case KvType::kF32:
      break;
  }
  return fn.template operator()<F32Elements>();
}

// The keys of the block after the one of `key`, while work goes on in [.., end); then what `then`
// begins with.
static inline const uint8_t* KeysAfter(const AttentionArgs& args, const SequenceRows& sequence,
                                       int kv_head, int key, int end, const uint8_t* then) {
  const int next = key / kKvBlockTokens + 1;
  if (next * kKvBlockTokens >= end) return then;
  return KeyPart(args.kv, sequence.blocks[next], kv_head).data;
}

// Before a batch meets any keys.
static inline void TransposeIfLatent(const AttentionArgs& args, const QueryBatch& batch) {
  if (args.kv.shape.layout == KvLayout::kLatent) TransposeQueries(batch, batch.scratch.queries);
}

static void ScoreSplit(const AttentionArgs& args, const SequenceRows& sequence, int kv_head,
                       int split, int end, const QueryBatch& batch) {
  int begin = 0;
  const int first_key = FirstBlockKey(batch, split);
  const uint8_t* first_values =
      ValuePart(args.kv, sequence.blocks[first_key / kKvBlockTokens], kv_head).data;
  for (int key = first_key; key < end; key += kKvBlockTokens) {
    while (batch.num_keys[begin] <= key) ++begin;
    if (begin >= batch.active) break;
    KvPart keys = KeyPart(args.kv, sequence.blocks[key / kKvBlockTokens], kv_head);
    float* scores = batch.scratch.scores + (key - split);
    if (keys.by_token) {
      const int past = batch.num_keys[batch.count - 1];
      const uint8_t* next = KeysAfter(args, sequence, kv_head, key, past, nullptr);
      ScoreLatentBlock(batch, begin, key, keys, next, args.scale, scores);
      continue;
    }
    const uint8_t* ahead = KeysAfter(args, sequence, kv_head, key, end, first_values);
    if (!ReadAsStored(keys, batch.active - begin)) {
      WidenKeys(keys, batch.scratch.keys);
      keys.data = reinterpret_cast<uint8_t*>(batch.scratch.keys);
      keys.type = KvType::kF32;
      ahead = nullptr;
    } else if (keys.type == KvType::kQ8_0) {
      WidenScales(keys, ahead, batch.scratch.keys);
    }
    WithElements(keys.type, [&]<typename Elements>() {
      ScoreBlock<Elements>(batch, begin, key, keys, ahead, args.scale, scores);
    });
  }
}

// The values from the block of `key` on, for the queries from `begin` on: all up to `end`, or one
// block alone, made ready in the scratch. `then`: what is read after `end`.
static inline ValueRun TakeValues(const AttentionArgs& args, const SequenceRows& sequence,
                                  int kv_head, int split, int key, int end, const uint8_t* then,
                                  const QueryBatch& batch, int begin) {
  const auto part_of = [&](int k) {
    return ValuePart(args.kv, sequence.blocks[k / kKvBlockTokens], kv_head);
  };
  ValueRun run;
  KvPart& first = run.blocks[0] = part_of(key);
  const int queries = batch.active - begin;
  const bool in_place = batch.dim == batch.value_dim && ReadAsStored(first, queries);
  // Few queries wait for memory, which is faster in the order of its addresses; latent vectors were
  // read as keys before. The scratch has the scales of one block.
  const bool latent = args.kv.shape.layout == KvLayout::kLatent;
  const bool alone =
      !in_place || first.type == KvType::kQ8_0 || (queries <= kFewQueries && !latent);
  const int past = !alone || end - key < kKvBlockTokens ? end : key + kKvBlockTokens;
  run.first_key = key - split;
  run.end = past - split;
  run.then = !in_place ? nullptr : past < end ? part_of(past).data : then;
  run.scales = batch.scratch.values;
  if (!in_place) {
    WidenValues(first, batch.value_dim, batch.dim, batch.scratch.values);
    first.data = reinterpret_cast<uint8_t*>(batch.scratch.values);
    first.type = KvType::kF32;
    first.dim = static_cast<int32_t>(batch.dim);
  } else if (first.type == KvType::kQ8_0) {
    WidenScales(first, run.then, batch.scratch.values);
  }
  for (int i = 1; i < run.count(); ++i) run.blocks[i] = part_of(key + i * kKvBlockTokens);
  return run;
}

// `then`: where the next split's keys begin, or null.
static void SumValues(const AttentionArgs& args, const SequenceRows& sequence, int kv_head,
                      int split, int end, const uint8_t* then, const QueryBatch& batch) {
  int begin = 0;
  for (int key = FirstBlockKey(batch, split); key < end;) {
    while (batch.num_keys[begin] <= key) ++begin;
    if (begin >= batch.active) break;
    const ValueRun run = TakeValues(args, sequence, kv_head, split, key, end, then, batch, begin);
    WithElements(run.blocks[0].type,
                 [&]<typename Elements>() { SumValueRun<Elements>(batch, begin, run, split); });
    key = split + run.end;
  }
}

// The largest score of one query in a split. Keys before `begin` are outside the query's window:
// their scores become -inf, and their probability 0, which adds nothing to any sum.
static inline float MaxScore(float* scores, int begin, int n) {
  const int from = begin / 16 * 16;  // lanes stay where positions put them
  for (int i = from; i < begin; ++i) scores[i] = -__builtin_inff();
  return MaxOfLanes(MaxOf(scores + from, n - from));
}

// The scores -> probabilities in place; returns their sum.
static inline float Probabilities(float* scores, int begin, int n, float max) {
  const int from = begin / 16 * 16;
  const F m = Set1(max);
  F sum = Zero();
  for (int i = from; i < n; i += 16) {
    StoreUpTo(scores + i, n - i, AttentionWeight(Sub(LoadUpTo(scores + i, n - i, 0.0f), m)));
    if (i < begin) __builtin_memset(scores + i, 0, sizeof(float) * static_cast<size_t>(begin - i));
    sum = Add(sum, LoadUpTo(scores + i, n - i, 0.0f));
  }
  if (from > 0) __builtin_memset(scores, 0, sizeof(float) * static_cast<size_t>(from));
  return TreeSum(sum);
}

// Takes a split of query t, of which batch has the maximum and l, into its total.
static inline void MergeSplit(QueryBatch* batch, int t, const float* split, bool is_first) {
  float* total = batch->scratch.total + t * batch->dim;
  if (is_first) {
    batch->total_max[t] = batch->max[t];
    batch->total_l[t] = batch->l[t];
    for (int64_t d = 0; d < batch->dim; d += 16) Store(total + d, Load(split + d));
    return;
  }
  const float max = batch->max[t] > batch->total_max[t] ? batch->max[t] : batch->total_max[t];
  const float keep = ScalarAttentionWeight(batch->total_max[t] - max);
  const float add = ScalarAttentionWeight(batch->max[t] - max);
  batch->total_max[t] = max;
  batch->total_l[t] = __builtin_fmaf(batch->l[t], add, batch->total_l[t] * keep);
  for (int64_t d = 0; d < batch->dim; d += 16) {
    Store(total + d, Fma(Load(split + d), Set1(add), Mul(Load(total + d), Set1(keep))));
  }
}

// A sink is a split of its own: one score, without a value.
static inline void MergeSink(QueryBatch* batch, int t) {
  float* split = batch->scratch.split + t * batch->dim;
  for (int64_t d = 0; d < batch->dim; d += 16) Store(split + d, Zero());
  batch->max[t] = batch->sink[t];
  batch->l[t] = 1.0f;
  MergeSplit(batch, t, split, /*is_first=*/false);
}

// Scores of queries [begin, active) in a split -> probabilities in place; max and l of the split.
static void SplitProbabilities(int split, int end, int begin, QueryBatch* batch) {
  const auto first_of = [&](int t) {
    return batch->first_key[t] < split ? 0 : batch->first_key[t] - split;
  };
  const auto end_of = [&](int t) {
    return (batch->num_keys[t] < end ? batch->num_keys[t] : end) - split;
  };
  const auto scores_of = [&](int t) { return batch->scratch.scores + int64_t{t} * kKvSplitTokens; };
  // All maxima first: no exponential waits for one then.
  for (int t = begin; t < batch->active; ++t) {
    batch->max[t] = MaxScore(scores_of(t), first_of(t), end_of(t));
  }
  for (int t = begin; t < batch->active; ++t) {
    batch->l[t] = Probabilities(scores_of(t), first_of(t), end_of(t), batch->max[t]);
  }
}

// The sums of the split of queries [returned, batch->active), which see keys in it. Keys go on up
// to max_keys after it.
static int SumSplit(const AttentionArgs& args, const SequenceRows& sequence, int kv_head, int split,
                    int end, int max_keys, QueryBatch* batch) {
  int begin = 0;
  while (batch->num_keys[begin] <= split) ++begin;
  batch->active = batch->count;
  while (batch->first_key[batch->active - 1] >= end) --batch->active;
  ScoreSplit(args, sequence, kv_head, split, end, *batch);
  SplitProbabilities(split, end, begin, batch);
  float* sums = batch->scratch.split;
  for (int64_t i = begin * batch->dim; i < batch->active * batch->dim; i += 16) {
    Store(sums + i, Zero());
  }
  const uint8_t* next_keys = KeysAfter(args, sequence, kv_head, end - 1, max_keys, nullptr);
  SumValues(args, sequence, kv_head, split, end, next_keys, *batch);
  return begin;
}

static void FinishBatch(const AttentionArgs& args, QueryBatch* batch) {
  for (int t = 0; t < batch->count; ++t) {
    if (args.sinks != nullptr) MergeSink(batch, t);
    const F l = Set1(batch->total_l[t]);
    for (int d = 0; d < batch->value_dim; d += 16) {
      StoreUpTo(batch->out[t] + d, batch->value_dim - d,
                Div(Load(batch->scratch.total + t * batch->dim + d), l));
    }
  }
}

static void AttendBatch(const AttentionArgs& args, const SequenceRows& sequence, int kv_head,
                        QueryBatch* batch) {
  TransposeIfLatent(args, *batch);
  const int max_keys = batch->num_keys[batch->count - 1];
  int split = batch->first_key[0] / kKvSplitTokens * kKvSplitTokens;
  for (; split < max_keys; split += kKvSplitTokens) {
    const int end = max_keys - split < kKvSplitTokens ? max_keys : split + kKvSplitTokens;
    const int begin = SumSplit(args, sequence, kv_head, split, end, max_keys, batch);
    for (int t = begin; t < batch->active; ++t) {
      MergeSplit(batch, t, batch->scratch.split + t * batch->dim,
                 /*is_first=*/batch->first_key[t] >= split);
    }
  }
  FinishBatch(args, batch);
}

static inline QueryBatch EmptyBatch(const AttentionArgs& args) {
  const KvShape& shape = args.kv.shape;
  QueryBatch batch;
  batch.key_dim = shape.key_dim;
  batch.value_dim = shape.value_dim;
  batch.dim = RoundUpLanes(shape.value_dim);
  batch.scratch = CutAttentionScratch(args.scratch, shape);
  batch.count = 0;
  return batch;
}

static inline void AddQuery(const AttentionArgs& args, const SequenceRows& sequence, int64_t row,
                            int head, QueryBatch* batch) {
  const int t = batch->count++;
  const int num_keys = sequence.position + static_cast<int>(row - sequence.row_begin) + 1;
  batch->q[t] = args.q + (row - args.first_row) * args.q_stride + int64_t{head} * batch->key_dim;
  batch->out[t] =
      args.out + (row - args.first_row) * args.out_stride + int64_t{head} * batch->value_dim;
  batch->num_keys[t] = num_keys;
  batch->first_key[t] = FirstKey(num_keys, args.window);
  batch->sink[t] = args.sinks == nullptr ? 0.0f : args.sinks[head];
}

static inline int KvHeadOf(const AttentionArgs& args, int head) {
  return head / (args.num_heads / args.kv.shape.num_heads);
}

// Rows [begin, end) of the step, all of one sequence, and the heads of one group.
static void AttendRows(const AttentionArgs& args, const SequenceRows& sequence, int group,
                       int64_t begin, int64_t end) {
  const int first_head = group * args.heads_per_task;
  const int kv_head = KvHeadOf(args, first_head);
  QueryBatch batch = EmptyBatch(args);
  for (int64_t row = begin; row < end; ++row) {
    for (int head = first_head; head < first_head + args.heads_per_task; ++head) {
      AddQuery(args, sequence, row, head, &batch);
      if (batch.count == kQueryBatch) {
        AttendBatch(args, sequence, kv_head, &batch);
        batch.count = 0;
      }
    }
  }
  if (batch.count > 0) AttendBatch(args, sequence, kv_head, &batch);
}

static inline int64_t CeilDiv(int64_t a, int64_t b) { return a <= 0 ? 0 : (a + b - 1) / b; }

// Tasks are (row, group of heads) with the group running fastest; each group's rows are taken
// together.
static void Attention(const AttentionArgs& args, int64_t begin, int64_t end) {
  const int groups = args.num_heads / args.heads_per_task;
  for (int group = 0; group < groups; ++group) {
    int64_t row = CeilDiv(begin - group, groups);
    const int64_t row_end = CeilDiv(end - group, groups);
    while (row < row_end) {
      const SequenceRows& s = *FindSequence(args.sequences, args.num_sequences, row);
      const int64_t sequence_end = int64_t{s.row_begin} + s.num_rows;
      const int64_t stop = sequence_end < row_end ? sequence_end : row_end;
      AttendRows(args, s, group, row, stop);
      row = stop;
    }
  }
}
