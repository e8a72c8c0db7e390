// Attention: queries meet the keys and the values of blocks of the KV cache.
// Included once, inside the instruction set's namespace, after kv_cache.inl.h.
//
// Queries go in tiles of kQueryTile, so that keys and values are loaded once per tile. Scores have
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
struct ScaledBytes {
  static constexpr bool kConverts = true;
};
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

// sum[h] += *q * key[h]. A broadcast into a register (kOnce) serves all halves, for processors with
// fewer loads than products; where conversions go beside the products it holds them up
// (FmaBroadcast).
template <bool kOnce, int kHalves>
[[gnu::always_inline]] static inline void AddProducts(const float* q, const F (&key)[kHalves],
                                                      F (&sum)[kHalves]) {
  if constexpr (kOnce) {
    const F broadcast = Set1(*q);
    DT_UNROLL for (int h = 0; h < kHalves; ++h) sum[h] = Fma(broadcast, key[h], sum[h]);
  } else {
    DT_UNROLL for (int h = 0; h < kHalves; ++h) sum[h] = FmaBroadcast(q, key[h], sum[h]);
  }
}

// scores[t][0..] = scale * (q_t . key), for kTile queries from `first` on and the first 16 *
// kHalves keys of a block.
template <typename Rows, bool kOnce, int kTile, int kHalves>
static inline void ScoreTile(const QueryBatch& batch, int first, Rows rows, const uint8_t* ahead,
                             float scale, float* scores) {
  constexpr int kRowBytes = kKvBlockTokens * Rows::kBytes;
  F sum[kTile][kHalves];
  DT_UNROLL for (auto& of_query : sum) { DT_UNROLL for (F& s : of_query) s = Zero(); }
  for (int group = 0; group < batch.key_dim; group += kKvScaleElements) {
    const int left = batch.key_dim - group;
    const int end = group + (left < kKvScaleElements ? left : kKvScaleElements);
    rows.Group(group);
    for (int d = group; d < end; ++d) {
      if (ahead != nullptr) AskFor(ahead, int64_t{d} * kRowBytes, kRowBytes);
      F key[kHalves];
      DT_UNROLL for (int h = 0; h < kHalves; ++h) key[h] = rows.Get(d, h);
      DT_UNROLL for (int t = 0; t < kTile; ++t) {
        AddProducts<kOnce>(batch.q[first + t] + d, key, sum[t]);
      }
    }
  }
  DT_UNROLL for (int t = 0; t < kTile; ++t) {
    float* to = scores + (first + t) * int64_t{kKvSplitTokens};
    DT_UNROLL for (int h = 0; h < kHalves; ++h) Store(to + 16 * h, Mul(sum[t][h], Set1(scale)));
  }
}

// Blocks of values that follow each other in a split and are read in one go: what tiles have summed
// stays in registers from one to the next.
struct ValueRun {
  int first_key;  // counted from the split's beginning, as the others
  int end;
  KvPart blocks[kKvSplitTokens / kKvBlockTokens];
  const uint8_t* then;  // what follows them in memory order of use, or null
  const float* scales;  // of a block of scaled bytes, which is alone
  int count() const { return (end - first_key + kKvBlockTokens - 1) / kKvBlockTokens; }
};

// sum[t] += p_t[j] * value[j] for tokens j in [begin, end) of a block, whose probabilities begin at
// p.
template <typename Rows, int kTile, int kVectors>
[[gnu::always_inline]] static inline void ValueBlock(const Rows& rows, const uint8_t* ahead,
                                                     const float* p, int begin, int end, int64_t at,
                                                     F (&sum)[kTile][kVectors]) {
  for (int j = begin; j < end; ++j) {
    if (ahead != nullptr) {  // in the order of addresses, whatever this pass reads
      constexpr int kBytes = 16 * kVectors * Rows::kBytes;
      AskFor(ahead, at * kKvBlockTokens * Rows::kBytes + int64_t{j} * kBytes, kBytes);
    }
    F value[kVectors];
    DT_UNROLL for (int v = 0; v < kVectors; ++v) value[v] = rows.Get(j, at + 16 * v);
    DT_UNROLL for (int t = 0; t < kTile; ++t) {
      const F weight = Set1(p[t * kKvSplitTokens + j]);
      DT_UNROLL for (int v = 0; v < kVectors; ++v) sum[t][v] = Fma(weight, value[v], sum[t][v]);
    }
  }
}

// split[t] += p_t[j] * value[j] for j in [begin, end), kVectors vectors of the dimension.
template <typename Elements, int kTile, int kVectors>
static inline void ValueTile(const QueryBatch& batch, int first, const ValueRun& run, bool asks,
                             int begin, int end, int64_t at) {
  const int64_t dim = batch.dim;
  float* split = batch.scratch.split + first * dim + at;
  F sum[kTile][kVectors];
  DT_UNROLL for (int t = 0; t < kTile; ++t) {
    DT_UNROLL for (int v = 0; v < kVectors; ++v) sum[t][v] = Load(split + t * dim + 16 * v);
  }
  for (int key = begin; key < end;) {
    const int i = (key - run.first_key) / kKvBlockTokens;
    const int block_key = run.first_key + i * kKvBlockTokens;
    const int block_end = end - block_key < kKvBlockTokens ? end - block_key : kKvBlockTokens;
    const uint8_t* ahead = !asks                 ? nullptr
                           : i + 1 < run.count() ? run.blocks[i + 1].data
                                                 : run.then;
    const float* p = batch.scratch.scores + first * int64_t{kKvSplitTokens} + block_key;
    ValueBlock<ValueRows<Elements>, kTile, kVectors>(ValueRows<Elements>(run.blocks[i], run.scales),
                                                     ahead, p, key - block_key, block_end, at, sum);
    key = block_key + block_end;
  }
  DT_UNROLL for (int t = 0; t < kTile; ++t) {
    DT_UNROLL for (int v = 0; v < kVectors; ++v) Store(split + t * dim + 16 * v, sum[t][v]);
  }
}

template <typename Elements, int kTile>
static inline void ValueRange(const QueryBatch& batch, int first, const ValueRun& run, bool asks,
                              int begin, int end) {
  if (begin >= end) return;
  constexpr int kVectors = kTile <= kQueryTile ? kValueVectors : 2;
  int64_t at = 0;
  for (; at + 16 * kVectors <= batch.dim; at += 16 * kVectors) {
    ValueTile<Elements, kTile, kVectors>(batch, first, run, asks, begin, end, at);
  }
  for (; at < batch.dim; at += 16) {
    ValueTile<Elements, kTile, 1>(batch, first, run, asks, begin, end, at);
  }
}

// A tile of values: the keys that all its queries see together, then what each sees beyond. Queries
// see keys up to num_keys[t] - split.
template <typename Elements, int kTile>
static inline void ValueTileOfRun(const QueryBatch& batch, int first, const ValueRun& run,
                                  bool asks, int split) {
  const auto visible = [&](int t) {
    const int n = batch.num_keys[first + t] - split;
    return n < run.end ? n : run.end;
  };
  const int common = visible(0);
  ValueRange<Elements, kTile>(batch, first, run, asks, run.first_key, common);
  const int rest = common > run.first_key ? common : run.first_key;
  for (int t = 1; t < kTile; ++t) {
    ValueRange<Elements, 1>(batch, first + t, run, /*asks=*/false, rest, visible(t));
  }
}

// Calls body.template operator()<tile>(first), tile from 1 to kTile.
template <int kTile = kLargestQueryTile, typename Body>
static inline void WithTile(int tile, int first, const Body& body) {
  if constexpr (kTile > 1) {
    if (tile < kTile) return WithTile<kTile - 1>(tile, first, body);
  }
  body.template operator()<kTile>(first);
}
// The tile that so many queries begin with. Few are one tile or two: each takes keys and values
// from how they are stored anew, and a small one waits for its own sums.
static inline int NextTile(int queries) {
  if (queries <= kLargestQueryTile) return queries;
  return queries <= 2 * kLargestQueryTile ? (queries + 1) / 2 : kQueryTile;
}
// Calls body for tiles that cover queries [begin, count).
template <typename Body>
static inline void ForTiles(int begin, int count, const Body& body) {
  for (int first = begin; first < count;) {
    const int tile = NextTile(count - first);
    WithTile(tile, first, body);
    first += tile;
  }
}

template <bool kOnce, typename Rows>
static void ScoreRows(const QueryBatch& batch, int begin, int key, const Rows& rows,
                      const uint8_t* ahead, float scale, float* scores) {
  ForTiles(begin, batch.active, [&]<int kTile>(int first) {
    const uint8_t* asked = first == begin ? ahead : nullptr;
    if (batch.num_keys[first + kTile - 1] - key > 16) {
      ScoreTile<Rows, kOnce, kTile, 2>(batch, first, rows, asked, scale, scores);
    } else {
      ScoreTile<Rows, kOnce, kTile, 1>(batch, first, rows, asked, scale, scores);
    }
  });
}

template <typename Elements>
static void ScoreBlock(const QueryBatch& batch, int begin, int key, const KvPart& part,
                       const uint8_t* ahead, float scale, float* scores) {
  const KeyRows<Elements> rows(part, batch.scratch.keys);
  if constexpr (Elements::kConverts) {
    if (processor_converts_aside) {
      return ScoreRows<false>(batch, begin, key, rows, ahead, scale, scores);
    }
  }
  ScoreRows<true>(batch, begin, key, rows, ahead, scale, scores);
}

template <typename Elements>
static void SumValueRun(const QueryBatch& batch, int begin, const ValueRun& run, int split) {
  ForTiles(begin, batch.active, [&]<int kTile>(int first) {
    ValueTileOfRun<Elements, kTile>(batch, first, run, first == begin, split);
  });
}
