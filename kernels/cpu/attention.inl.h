// Causal attention over the KV cache; kernels/ref/attention.cc says what it computes.
// Included once, inside the instruction set's namespace, after kv_cache.inl.h.
//
// All queries (step rows x heads of a group) that read one KV head work through the splits
// together, in tiles of kQueryTile, so that keys and values are loaded once per tile. Scores have
// lane = key, values lane = dimension: no sum crosses lanes but the 16 of l.

// One batch of queries against one KV head. Queries are ordered by row, so first_key and num_keys
// ascend.
struct QueryBatch {
  int count;
  int active;  // the first queries, whose window begins in this split or before it
  const float* q[kQueryBatch];
  float* out[kQueryBatch];
  int first_key[kQueryBatch];
  int num_keys[kQueryBatch];
  float sink[kQueryBatch];
  float max[kQueryBatch];  // of the split, then
  float l[kQueryBatch];
  float total_max[kQueryBatch];  // of all splits so far
  float total_l[kQueryBatch];
  AttentionScratch scratch;
  int key_dim;
  int value_dim;
  int64_t dim;  // value_dim in whole vectors: row length of split, total and values in scratch
};

// What follows a block in memory order of use: asked for while the block is worked on, into the
// second-level cache, since blocks are scattered and short for the processor's own prefetches.
// Null: nothing.
[[gnu::always_inline]] static inline void AskFor(const uint8_t* ahead, int64_t begin, int bytes) {
  for (int i = 0; i < bytes; i += 64) __builtin_prefetch(ahead + begin + i, 0, 2);
}

// Rows of a block's keys that lie by dimension: Group(d) goes before the rows d .. d + 31, Get
// gives 16 keys of a row.
template <typename Elements>
struct KeyRows {
  static constexpr int kBytes = Elements::kBytes;
  const uint8_t* data;
  explicit KeyRows(const KvPart& part, const float* /*scales*/) : data(part.data) {}
  void Group(int) {}
  F Get(int d, int half) const {
    return Elements::Get(data + (int64_t{d} * kKvBlockTokens + 16 * half) * kBytes);
  }
};
// Rows of values, that lie by token: Token(j, at) goes before vectors at, at + 16, .. of token j.
template <typename Elements>
struct ValueRows {
  static constexpr int kBytes = Elements::kBytes;
  const uint8_t* data;
  int64_t stride;
  ValueRows(const KvPart& part, const float* /*scales*/) : data(part.data), stride(part.dim) {}
  F Get(int j, int64_t at) const { return Elements::Get(data + (j * stride + at) * kBytes); }
};

// Scaled bytes, as LoadOfKeys and LoadOfToken give them. `scales`: those of the block as f32.
struct ScaledBytes {};
template <>
struct KeyRows<ScaledBytes> {
  static constexpr int kBytes = 1;
  const uint8_t* data;
  const float* scales;
  F scale[2];
  KeyRows(const KvPart& part, const float* of_block) : data(part.data), scales(of_block) {}
  void Group(int d) {
    scale[0] = Load(scales + d / kKvScaleElements * kKvBlockTokens);
    scale[1] = Load(scales + d / kKvScaleElements * kKvBlockTokens + 16);
  }
  F Get(int d, int half) const {
    return Mul(ToFloat(LoadI8(data + int64_t{d} * kKvBlockTokens + 16 * half)), scale[half]);
  }
};
template <>
struct ValueRows<ScaledBytes> {
  static constexpr int kBytes = 1;
  const uint8_t* data;
  const float* scales;
  int64_t stride, num_scales;
  ValueRows(const KvPart& part, const float* of_block)
      : data(part.data),
        scales(of_block),
        stride(part.dim),
        num_scales((part.dim + kKvScaleElements - 1) / kKvScaleElements) {}
  F Get(int j, int64_t at) const {
    return Mul(ToFloat(LoadI8(data + j * stride + at)),
               Set1(scales[j * num_scales + at / kKvScaleElements]));
  }
};

// scores[t][0..31] = scale * (q_t . key), for kTile queries from `first` on and the 32 keys of a
// block.
template <typename Rows, int kTile>
static inline void ScoreTile(const QueryBatch& batch, int first, Rows rows, const uint8_t* ahead,
                             float scale, float* scores) {
  constexpr int kRowBytes = kKvBlockTokens * Rows::kBytes;
  F sum[kTile][2];
  DT_UNROLL for (int t = 0; t < kTile; ++t) sum[t][0] = sum[t][1] = Zero();
  for (int group = 0; group < batch.key_dim; group += kKvScaleElements) {
    const int left = batch.key_dim - group;
    const int end = group + (left < kKvScaleElements ? left : kKvScaleElements);
    rows.Group(group);
    for (int d = group; d < end; ++d) {
      if (ahead != nullptr) AskFor(ahead, int64_t{d} * kRowBytes, kRowBytes);
      const F low = rows.Get(d, 0), high = rows.Get(d, 1);
      DT_UNROLL for (int t = 0; t < kTile; ++t) {
        const F q = Set1(batch.q[first + t][d]);
        sum[t][0] = Fma(q, low, sum[t][0]);
        sum[t][1] = Fma(q, high, sum[t][1]);
      }
    }
  }
  DT_UNROLL for (int t = 0; t < kTile; ++t) {
    float* to = scores + (first + t) * int64_t{kKvSplitTokens};
    Store(to, Mul(sum[t][0], Set1(scale)));
    Store(to + 16, Mul(sum[t][1], Set1(scale)));
  }
}

// split[t] += p_t[j] * value[j] for j in [begin, end), kVectors vectors of the dimension.
template <typename Rows, int kTile, int kVectors>
static inline void ValueTile(const QueryBatch& batch, int first, const Rows& rows,
                             const uint8_t* ahead, const float* p, int begin, int end, int64_t at) {
  F sum[kTile][kVectors];
  DT_UNROLL for (int t = 0; t < kTile; ++t) {
    DT_UNROLL for (int v = 0; v < kVectors; ++v) {
      sum[t][v] = Load(batch.scratch.split + (first + t) * batch.dim + at + 16 * v);
    }
  }
  for (int j = begin; j < end; ++j) {
    if (ahead != nullptr) {
      AskFor(ahead, (j * batch.dim + at) * Rows::kBytes, 16 * kVectors * Rows::kBytes);
    }
    F value[kVectors];
    DT_UNROLL for (int v = 0; v < kVectors; ++v) value[v] = rows.Get(j, at + 16 * v);
    DT_UNROLL for (int t = 0; t < kTile; ++t) {
      const F weight = Set1(p[(first + t) * int64_t{kKvSplitTokens} + j]);
      DT_UNROLL for (int v = 0; v < kVectors; ++v) sum[t][v] = Fma(weight, value[v], sum[t][v]);
    }
  }
  DT_UNROLL for (int t = 0; t < kTile; ++t) {
    DT_UNROLL for (int v = 0; v < kVectors; ++v) {
      Store(batch.scratch.split + (first + t) * batch.dim + at + 16 * v, sum[t][v]);
    }
  }
}

template <typename Rows, int kTile>
static inline void ValueRange(const QueryBatch& batch, int first, const Rows& rows,
                              const uint8_t* ahead, const float* p, int begin, int end) {
  if (begin >= end) return;
  int64_t at = 0;
  for (; at + 16 * kValueVectors <= batch.dim; at += 16 * kValueVectors) {
    ValueTile<Rows, kTile, kValueVectors>(batch, first, rows, ahead, p, begin, end, at);
  }
  for (; at < batch.dim; at += 16) {
    ValueTile<Rows, kTile, 1>(batch, first, rows, ahead, p, begin, end, at);
  }
}

// A tile of values: the keys that all its queries see together, then what each sees beyond.
template <typename Rows, int kTile>
static inline void ValueTileOfBlock(const QueryBatch& batch, int first, const Rows& rows,
                                    const uint8_t* ahead, const float* p, int key_begin) {
  const auto visible = [&](int t) {
    const int n = batch.num_keys[first + t] - key_begin;
    return n < kKvBlockTokens ? n : kKvBlockTokens;
  };
  const int common = visible(0);
  ValueRange<Rows, kTile>(batch, first, rows, ahead, p, 0, common);
  for (int t = 1; t < kTile; ++t) {
    ValueRange<Rows, 1>(batch, first + t, rows, nullptr, p, common, visible(t));
  }
}

// Calls body.template operator()<kTile>(first) for tiles that cover queries [begin, count).
template <typename Body>
static inline void ForTiles(int begin, int count, const Body& body) {
  int t = begin;
  for (; t + kQueryTile <= count; t += kQueryTile) body.template operator()<kQueryTile>(t);
  if constexpr (kQueryTile > 3) {
    for (; t + 3 <= count; t += 3) body.template operator()<3>(t);
  }
  for (; t < count; ++t) body.template operator()<1>(t);
}

template <typename Elements>
static void ScoreBlock(const QueryBatch& batch, int begin, const KvPart& part, const uint8_t* ahead,
                       float scale, float* scores) {
  const KeyRows<Elements> rows(part, batch.scratch.keys);
  ForTiles(begin, batch.active, [&]<int kTile>(int first) {
    ScoreTile<KeyRows<Elements>, kTile>(batch, first, rows, first == begin ? ahead : nullptr, scale,
                                        scores);
  });
}

template <typename Elements>
static void ValueBlockSum(const QueryBatch& batch, int begin, const KvPart& part,
                          const uint8_t* ahead, const float* p, int key_begin) {
  const ValueRows<Elements> rows(part, batch.scratch.values);
  ForTiles(begin, batch.active, [&]<int kTile>(int first) {
    ValueTileOfBlock<ValueRows<Elements>, kTile>(batch, first, rows,
                                                 first == begin ? ahead : nullptr, p, key_begin);
  });
}

// Where many queries share a block it is widened to f32 once.
constexpr int kWidenFrom = 2 * kQueryTile;

// Whether the kernels read the part as it is stored, for so many queries.
static inline bool ReadAsStored(const KvPart& part, int queries) {
  return part.type == KvType::kF32 || queries < kWidenFrom;
}

// The scales of a part of kQ8_0, in the order in which they are stored.
static inline void WidenScales(const KvPart& part, float* to) {
  const int blocks = (part.dim + kKvScaleElements - 1) / kKvScaleElements;
  const uint8_t* from = ScaleOf(part, 0, 0);
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

// The block after the one of `key`, while work goes on in [.., end); then what `then` begins with.
static inline const uint8_t* AheadOf(const AttentionArgs& args, const SequenceRows& sequence,
                                     int kv_head, int key, int end, bool values,
                                     const uint8_t* then) {
  const int next = key / kKvBlockTokens + 1;
  if (next * kKvBlockTokens >= end) return then;
  const int32_t block = sequence.blocks[next];
  return values ? ValuePart(args.kv, block, kv_head).data : KeyPart(args.kv, block, kv_head).data;
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
    const uint8_t* ahead =
        AheadOf(args, sequence, kv_head, key, end, /*values=*/false, first_values);
    float* scores = batch.scratch.scores + (key - split);
    if (keys.by_token || !ReadAsStored(keys, batch.active - begin)) {
      WidenKeys(keys, batch.scratch.keys);
      keys.data = reinterpret_cast<uint8_t*>(batch.scratch.keys);
      keys.type = KvType::kF32;
      ahead = nullptr;
    } else if (keys.type == KvType::kQ8_0) {
      WidenScales(keys, batch.scratch.keys);
    }
    WithElements(keys.type, [&]<typename Elements>() {
      ScoreBlock<Elements>(batch, begin, keys, ahead, args.scale, scores);
    });
  }
}

// `then`: where the next split's keys begin, or null.
static void SumValues(const AttentionArgs& args, const SequenceRows& sequence, int kv_head,
                      int split, int end, const uint8_t* then, const QueryBatch& batch) {
  int begin = 0;
  for (int key = FirstBlockKey(batch, split); key < end; key += kKvBlockTokens) {
    while (batch.num_keys[begin] <= key) ++begin;
    if (begin >= batch.active) break;
    KvPart values = ValuePart(args.kv, sequence.blocks[key / kKvBlockTokens], kv_head);
    const uint8_t* ahead = AheadOf(args, sequence, kv_head, key, end, /*values=*/true, then);
    const float* p = batch.scratch.scores + (key - split);
    const bool whole = batch.dim == batch.value_dim;
    if (!whole || !ReadAsStored(values, batch.active - begin)) {
      WidenValues(values, batch.value_dim, batch.dim, batch.scratch.values);
      values.data = reinterpret_cast<uint8_t*>(batch.scratch.values);
      values.type = KvType::kF32;
      values.dim = static_cast<int32_t>(batch.dim);
      ahead = nullptr;
    } else if (values.type == KvType::kQ8_0) {
      WidenScales(values, batch.scratch.values);
    }
    WithElements(values.type, [&]<typename Elements>() {
      ValueBlockSum<Elements>(batch, begin, values, ahead, p, key);
    });
  }
}

// Scores of one query in a split -> probabilities in place; max and l of the split. Keys before
// `begin` are outside the query's window: their probability becomes 0, which adds nothing to any
// sum.
static inline void Probabilities(float* scores, int begin, int n, float* max, float* l) {
  const int from = begin / 16 * 16;  // lanes stay where positions put them
  for (int i = from; i < begin; ++i) scores[i] = -__builtin_inff();
  *max = MaxOfLanes(MaxOf(scores + from, n - from));
  const F m = Set1(*max);
  F sum = Zero();
  for (int i = from; i < n; i += 16) {
    StoreUpTo(scores + i, n - i, Exp(Sub(LoadUpTo(scores + i, n - i, 0.0f), m)));
    if (i < begin) __builtin_memset(scores + i, 0, sizeof(float) * static_cast<size_t>(begin - i));
    sum = Add(sum, LoadUpTo(scores + i, n - i, 0.0f));
  }
  if (from > 0) __builtin_memset(scores, 0, sizeof(float) * static_cast<size_t>(from));
  *l = TreeSum(sum);
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
  const float keep = ScalarExp(batch->total_max[t] - max);
  const float add = ScalarExp(batch->max[t] - max);
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

// The sums of the split of queries [returned, batch->active), which see keys in it. Keys go on up
// to max_keys after it.
static int SumSplit(const AttentionArgs& args, const SequenceRows& sequence, int kv_head, int split,
                    int end, int max_keys, QueryBatch* batch) {
  int begin = 0;
  while (batch->num_keys[begin] <= split) ++begin;
  batch->active = batch->count;
  while (batch->first_key[batch->active - 1] >= end) --batch->active;
  ScoreSplit(args, sequence, kv_head, split, end, *batch);
  for (int t = begin; t < batch->active; ++t) {
    const int first = batch->first_key[t] < split ? 0 : batch->first_key[t] - split;
    const int n = (batch->num_keys[t] < end ? batch->num_keys[t] : end) - split;
    Probabilities(batch->scratch.scores + int64_t{t} * kKvSplitTokens, first, n, &batch->max[t],
                  &batch->l[t]);
    float* sum = batch->scratch.split + t * batch->dim;
    for (int64_t d = 0; d < batch->dim; d += 16) Store(sum + d, Zero());
  }
  const uint8_t* next_keys =
      AheadOf(args, sequence, kv_head, end - 1, max_keys, /*values=*/false, nullptr);
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
