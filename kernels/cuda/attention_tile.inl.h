// Attention of many queries of a sequence, as prompts have them: a block has a tile of queries that
// read the same KV head, rows x heads, and brings keys and values into shared memory as f32, once
// for all of them. After attention.inl.h; every sum has the order that it has there.
//
// A warp has the same 8 queries from the first score to the last element of the output. Of a split
// a lane has 8 keys (4, if no more than half a split is there) and their scores for each of these
// queries, in registers; then 4 elements of a value, and their sums for each query. Keys that a
// query does not see have a score that nobody reads, and take no part in its sums.
//
// Dims are multiples of 4.

constexpr int kTileQueries = 32;
constexpr int kWarpQueries = kTileQueries / kAttentionWarps;
constexpr int kStageDims = 32;      // of keys, in shared memory at once
constexpr int kStageFloats = 2048;  // of queries or values
static_assert(kTileQueries == kStageDims, "scores lie where keys were");
static_assert(kTileQueries * kStageDims <= kStageFloats);

// One query of a tile.
struct TileQuery {
  int64_t q, out;  // where its vectors begin, in args.q and args.out
  int32_t head, first_key, num_keys;
};

// Queries [first, past) of one KV head, counted over the rows of the step and, within a row, over
// the heads that share it. No sequence: no tile.
struct QueryTile {
  const SequenceRows* sequence;
  int kv_head;
  int64_t first, past;
  KvPart keys, values;  // as they would lie in block 0; set by the kernel
};

// Queries of a KV head that belong to tasks before `task`.
DT_DEVICE int64_t QueriesBefore(const AttentionArgs& args, int kv_head, int64_t task) {
  const int groups = args.num_heads / args.heads_per_task;
  const int own = groups / args.kv.shape.num_heads;
  const int of_row = Larger(static_cast<int>(task % groups) - kv_head * own, 0);
  return (task / groups * own + Smaller(of_row, own)) * args.heads_per_task;
}

// Tile `index` of a KV head: sequences with fewer than `tile_rows` rows have none.
DT_DEVICE QueryTile FindTile(const AttentionArgs& args, int64_t begin, int64_t end, int tile_rows,
                             int kv_head, int64_t index) {
  const int64_t sharing = args.num_heads / args.kv.shape.num_heads;
  const int64_t first = QueriesBefore(args, kv_head, begin);
  const int64_t past = QueriesBefore(args, kv_head, end);
  for (int i = 0; i < args.num_sequences; ++i) {
    const SequenceRows& s = args.sequences[i];
    if (s.num_rows < tile_rows) continue;
    const int64_t from = Larger(first, s.row_begin * sharing);
    const int64_t to = Smaller(past, (int64_t{s.row_begin} + s.num_rows) * sharing);
    const int64_t tiles = to > from ? CeilDiv(to - from, kTileQueries) : 0;
    if (index < tiles) {
      const int64_t at = from + index * kTileQueries;
      return {&s, kv_head, at, Smaller(at + kTileQueries, to), {}, {}};
    }
    index -= tiles;
  }
  return {};
}

// Where they lie in the block of a position.
DT_DEVICE KvPart InBlockOf(const AttentionArgs& args, const QueryTile& tile, KvPart part,
                           int position) {
  part.data += tile.sequence->blocks[position / kKvBlockTokens] * args.kv.block_bytes;
  return part;
}

// Query `index` of a tile; behind its last one that one again, which nobody stores.
DT_DEVICE TileQuery QueryOf(const AttentionArgs& args, const QueryTile& tile, int index) {
  const int64_t sharing = args.num_heads / args.kv.shape.num_heads;
  const int64_t number = Smaller(tile.first + index, tile.past - 1);
  const int64_t row = number / sharing, at = row - args.first_row;
  TileQuery query;
  query.head = static_cast<int32_t>(tile.kv_head * sharing + number % sharing);
  query.q = at * args.q_stride + int64_t{query.head} * args.kv.shape.key_dim;
  query.out = at * args.out_stride + int64_t{query.head} * args.kv.shape.value_dim;
  query.num_keys =
      tile.sequence->position + static_cast<int32_t>(row - tile.sequence->row_begin) + 1;
  query.first_key = FirstKey(query.num_keys, args.window);
  return query;
}

DT_DEVICE int FirstWarpQuery() { return WarpIndex() * kWarpQueries; }

// Where element d + e of a stage lies, of a split's key; d is a multiple of 4, e < 4. Lanes that
// write four elements of four tokens each, lanes that write one of 32 tokens, and lanes that read
// it have banks of their own.
DT_DEVICE int StagedKey(int d, int e, int key) { return (d + e) * kKvSplitTokens + (key ^ d); }

// Elements [first_d, first_d + kStageDims) of the first `count` keys of the split from `from` on.
// In place of what is behind the last element, and of blocks without a key of `keys`, there are
// others of which nobody makes use.
template <KvType kType, bool kByToken, typename Shared>
DT_DEVICE void StageKeys(const AttentionArgs& args, const QueryTile& tile, SplitKeys keys, int from,
                         int count, int first_d, Shared& staged) {
  constexpr int kLoads = kStageDims * kKvBlockTokens / 4 / kWarp;
  const int column = 4 * (Lane() % 8), row = Lane() / 8;
  for (int first = WarpIndex() * kKvBlockTokens; first < count;
       first += kAttentionWarps * kKvBlockTokens) {
    const int position = Smaller(Larger(from + first, keys.first), keys.past - 1);
    KvPart part = InBlockOf(args, tile, tile.keys, position);
    part.by_token = kByToken;
    Four<kType> four[kLoads];
    DT_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int slot = kByToken ? 4 * i + row : column;
      const int d = first_d + (kByToken ? column : 4 * i + row);
      four[i] = LoadFour<kType>(part, slot, Smaller(d, part.dim - (kByToken ? 4 : 1)));
    }
    DT_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const Float4 wide = Widen<kType>(four[i], kByToken);
      if constexpr (kByToken) {
        for (int e = 0; e < 4; ++e) staged[StagedKey(column, e, first + 4 * i + row)] = wide.v[e];
      } else {
        WriteShared(staged, StagedKey(4 * i, row, first + column), wide);
      }
    }
  }
}

// The same elements of the warp's queries: a row of kStageDims for each.
template <typename Queries, typename Shared>
DT_DEVICE void StageQueries(const AttentionArgs& args, Queries& queries, int first_d,
                            Shared& staged) {
  const int d = first_d + Lane();
  for (int i = FirstWarpQuery(); i < FirstWarpQuery() + kWarpQueries; ++i) {
    const TileQuery query = queries[i];
    staged[i * kStageDims + Lane()] = d < args.kv.shape.key_dim ? args.q[query.q + d] : 0.0f;
  }
}

// Adds the products of elements d .. d + 3 of a stage to the sums of the warp's queries and the
// lane's keys.
template <int kKeys, typename Keys, typename Shared>
DT_DEVICE void AddDims(Keys& keys, Shared& queries, int d, float (&sum)[kWarpQueries][kKeys]) {
  Float4 q[kWarpQueries];
  DT_UNROLL
  for (int i = 0; i < kWarpQueries; ++i) {
    q[i] = ReadShared<Float4>(queries, (FirstWarpQuery() + i) * kStageDims + d);
  }
  DT_UNROLL
  for (int e = 0; e < 4; ++e) {
    DT_UNROLL
    for (int first = 0; first < kKeys; first += 4) {
      const Float4 k = ReadShared<Float4>(keys, StagedKey(d, e, 4 * Lane()) + first * kWarp);
      DT_UNROLL
      for (int i = 0; i < kWarpQueries; ++i) {
        DT_UNROLL
        for (int j = 0; j < 4; ++j) {
          sum[i][first + j] = Fma(q[i].v[e], k.v[j], sum[i][first + j]);
        }
      }
    }
  }
}

// scores[query][key] of the split from `from` on, whose keys that the tile sees are `keys`: kKeys
// of each lane. `scores` has the keys until then, `stage` the queries.
template <KvType kType, int kKeys, typename Queries, typename Shared, typename Stage>
DT_DEVICE void TileScores(const AttentionArgs& args, const QueryTile& tile, Queries& queries,
                          SplitKeys keys, int from, Shared& scores, Stage& stage) {
  const int key_dim = args.kv.shape.key_dim;
  float sum[kWarpQueries][kKeys] = {};
  for (int first_d = 0; first_d < key_dim; first_d += kStageDims) {
    SyncBlock();
    StageQueries(args, queries, first_d, stage);
    if (args.kv.shape.layout == KvLayout::kLatent) {
      StageKeys<kType, true>(args, tile, keys, from, kKeys * kWarp, first_d, scores);
    } else {
      StageKeys<kType, false>(args, tile, keys, from, kKeys * kWarp, first_d, scores);
    }
    SyncBlock();
    const int dims = Smaller(kStageDims, key_dim - first_d);
    for (int d = 0; d < dims; d += 4) AddDims(scores, stage, d, sum);
  }
  SyncBlock();
  DT_UNROLL
  for (int i = 0; i < kWarpQueries; ++i) {
    DT_UNROLL
    for (int first = 0; first < kKeys; first += 4) {
      Float4 four;
      DT_UNROLL
      for (int j = 0; j < 4; ++j) four.v[j] = sum[i][first + j] * args.scale;
      WriteShared(scores, (FirstWarpQuery() + i) * kKvSplitTokens + first * kWarp + 4 * Lane(),
                  four);
    }
  }
  SyncWarp();
}

// Keys of `keys` that a query sees.
DT_DEVICE SplitKeys SeenBy(const TileQuery& query, SplitKeys keys) {
  return {Larger(keys.first, query.first_key), Smaller(keys.past, query.num_keys)};
}

// What a split adds to the state of a query that has seen the splits before it. states[4 q]: max,
// l, and the factors of the merge.
template <typename States>
DT_DEVICE void MergeState(const TileQuery& query, SplitKeys seen, SoftmaxState split, int number,
                          States& states) {
  if (seen.first >= seen.past) return;
  MergeFactors merged = {split.max, split.l, 0.0f, 0.0f};
  if (seen.first != query.first_key) {
    merged = MergeOf(states[4 * number], states[4 * number + 1], split.max, split.l);
  }
  states[4 * number] = merged.max;
  states[4 * number + 1] = merged.l;
  states[4 * number + 2] = merged.keep;
  states[4 * number + 3] = merged.add;
}

// The warp's scores become probabilities, and each query's state that behind this split.
template <typename Queries, typename Shared, typename States>
DT_DEVICE void TileSoftmax(Queries& queries, SplitKeys keys, Shared& scores, States& states) {
  SoftmaxState split = {};  // lane i has that of the warp's query i
  for (int i = 0; i < kWarpQueries; ++i) {
    const int number = FirstWarpQuery() + i;
    const SplitKeys seen = SeenBy(queries[number], keys);
    if (seen.first >= seen.past) continue;
    const SoftmaxState state = Softmax(number * kKvSplitTokens, seen, scores);
    if (Lane() == i) split = state;
  }
  if (Lane() < kWarpQueries) {
    const int number = FirstWarpQuery() + Lane();
    const TileQuery query = queries[number];
    MergeState(query, SeenBy(query, keys), split, number, states);
  }
  SyncWarp();
}

// `kLanes` lanes have the elements of a value, so that a thread has so many of the warp's queries.
template <int kLanes>
struct ValueShape {
  static constexpr int kQueries = kWarpQueries * kLanes / kWarp;
  static constexpr int kDims = 4 * kLanes;
  static constexpr int kKeys = kStageFloats / kDims;  // in shared memory at once
  static_assert(kKvBlockTokens % kKeys == 0);
};

// Elements [first_d, first_d + kDims) of the values of kKeys keys, from `position` on: those behind
// the sequence's last one are what lies there.
template <KvType kType, int kLanes, typename Shared>
DT_DEVICE void StageValues(const AttentionArgs& args, const QueryTile& tile, int position,
                           int first_d, Shared& staged) {
  constexpr int kLoads = kStageFloats / 4 / kAttentionThreads;
  const int d = first_d + 4 * (ThreadIndex() % kLanes);
  if (d >= args.kv.shape.value_dim) return;
  KvPart part = InBlockOf(args, tile, tile.values, position);
  part.by_token = true;
  const int slot = position % kKvBlockTokens + ThreadIndex() / kLanes;
  Four<kType> four[kLoads];
  DT_UNROLL
  for (int i = 0; i < kLoads; ++i) {
    four[i] = LoadFour<kType>(part, slot + i * kAttentionThreads / kLanes, d);
  }
  DT_UNROLL
  for (int i = 0; i < kLoads; ++i) {
    WriteShared(staged, 4 * (ThreadIndex() + i * kAttentionThreads), Widen<kType>(four[i], true));
  }
}

// Adds p_j v_jd of four keys to the sums of this thread's queries. p_at, v_at: where the first
// query's probability of the first key is, and that key's values. Unless all queries see all of
// them, each is asked: `position` is that of the first key.
template <int kLanes, bool kAllSeen, typename Queries, typename Shared, typename Stage>
DT_DEVICE void AddKeys(Queries& queries, int position, Shared& scores, int p_at, Stage& values,
                       int v_at, float (&sum)[ValueShape<kLanes>::kQueries][4]) {
  using Shape = ValueShape<kLanes>;
  Float4 p[Shape::kQueries];
  DT_UNROLL
  for (int i = 0; i < Shape::kQueries; ++i) {
    p[i] = ReadShared<Float4>(scores, p_at + i * kKvSplitTokens);
  }
  DT_UNROLL
  for (int e = 0; e < 4; ++e) {
    const Float4 v = ReadShared<Float4>(values, v_at + e * Shape::kDims);
    DT_UNROLL
    for (int i = 0; i < Shape::kQueries; ++i) {
      if constexpr (!kAllSeen) {
        const TileQuery query = queries[p_at / kKvSplitTokens + i];
        if (position + e < query.first_key || position + e >= query.num_keys) continue;
      }
      DT_UNROLL
      for (int c = 0; c < 4; ++c) sum[i][c] = Fma(p[i].v[e], v.v[c], sum[i][c]);
    }
  }
}

// Sums of the split's values for this thread's queries and elements d .. d + 3 become part of
// `out`. All that is there is under way before any of it is waited for.
template <int kLanes, typename Queries, typename States>
DT_DEVICE void MergeTile(const AttentionArgs& args, Queries& queries, int first_query,
                         int past_query, SplitKeys keys, int d, States& states,
                         const float (&sum)[ValueShape<kLanes>::kQueries][4]) {
  using Shape = ValueShape<kLanes>;
  float before[Shape::kQueries][4] = {};
  DT_UNROLL
  for (int i = 0; i < Shape::kQueries; ++i) {
    const TileQuery query = queries[first_query + i];
    if (SeenBy(query, keys).first == query.first_key) continue;
    DT_UNROLL
    for (int c = 0; c < 4; ++c) before[i][c] = args.out[query.out + d + c];
  }
  DT_UNROLL
  for (int i = 0; i < Shape::kQueries; ++i) {
    const TileQuery query = queries[first_query + i];
    const SplitKeys seen = SeenBy(query, keys);
    if (first_query + i >= past_query || seen.first >= seen.past) continue;
    const float keep = states[4 * (first_query + i) + 2], add = states[4 * (first_query + i) + 3];
    const bool is_first = seen.first == query.first_key;
    DT_UNROLL
    for (int c = 0; c < 4; ++c) {
      args.out[query.out + d + c] = is_first ? sum[i][c] : Fma(sum[i][c], add, before[i][c] * keep);
    }
  }
}

template <KvType kType, int kLanes, typename Queries, typename Shared, typename Stage,
          typename States>
DT_DEVICE void TileValues(const AttentionArgs& args, const QueryTile& tile, Queries& queries,
                          SplitKeys keys, Shared& scores, Stage& stage, States& states) {
  using Shape = ValueShape<kLanes>;
  const int first_query = FirstWarpQuery() + Lane() / kLanes * Shape::kQueries;
  const int column = 4 * (Lane() % kLanes);
  SplitKeys by_all = keys;  // that all queries of this thread see
  for (int i = 0; i < Shape::kQueries; ++i) by_all = SeenBy(queries[first_query + i], by_all);
  for (int first_d = 0; first_d < args.kv.shape.value_dim; first_d += Shape::kDims) {
    const bool has = first_d + column < args.kv.shape.value_dim;
    float sum[Shape::kQueries][4] = {};
    for (int from = keys.first / Shape::kKeys * Shape::kKeys; from < keys.past;
         from += Shape::kKeys) {
      SyncBlock();
      StageValues<kType, kLanes>(args, tile, from, first_d, stage);
      SyncBlock();
      if (!has) continue;
      const int p_at = first_query * kKvSplitTokens + from % kKvSplitTokens;
      if (from >= by_all.first && from + Shape::kKeys <= by_all.past) {
        for (int i = 0; i < Shape::kKeys; i += 4) {
          AddKeys<kLanes, true>(queries, from + i, scores, p_at + i, stage,
                                i * Shape::kDims + column, sum);
        }
      } else {
        for (int i = 0; i < Shape::kKeys; i += 4) {
          AddKeys<kLanes, false>(queries, from + i, scores, p_at + i, stage,
                                 i * Shape::kDims + column, sum);
        }
      }
    }
    if (!has) continue;
    MergeTile<kLanes>(args, queries, first_query, static_cast<int>(tile.past - tile.first), keys,
                      first_d + column, states, sum);
  }
}

// The warp's sums over all splits become the output.
template <typename Queries, typename States>
DT_DEVICE void FinishTile(const AttentionArgs& args, const QueryTile& tile, Queries& queries,
                          States& states) {
  SyncWarp();
  const int past =
      Smaller(FirstWarpQuery() + kWarpQueries, static_cast<int>(tile.past - tile.first));
  for (int i = FirstWarpQuery(); i < past; ++i) {
    const TileQuery query = queries[i];
    for (int d = Lane(); d < args.kv.shape.value_dim; d += kWarp) {
      float& out = args.out[query.out + d];
      out = Finished(args, query.head, states[4 * i], states[4 * i + 1], out);
    }
  }
}

// Block y: a KV head; block x: one of at most `tiles` tiles of it, of tasks [begin, end), those
// with the longest contexts first.
template <KvType kType, int kLanes>
DT_KERNEL void AttentionTileKernel(AttentionArgs args, int64_t begin, int64_t end, int tile_rows,
                                   int64_t tiles) {
  DT_SHARED(float, scores, kTileQueries* kKvSplitTokens);
  DT_SHARED(float, stage, kStageFloats);
  DT_SHARED(float, states, 4 * kTileQueries);
  DT_SHARED(TileQuery, queries, kTileQueries);
  QueryTile tile = FindTile(args, begin, end, tile_rows, BlockIndexY(), tiles - 1 - BlockIndex());
  if (tile.sequence == nullptr) return;
  tile.keys = KeyPart(args.kv, 0, tile.kv_head);
  tile.values = ValuePart(args.kv, 0, tile.kv_head);
  if (ThreadIndex() < kTileQueries) queries[ThreadIndex()] = QueryOf(args, tile, ThreadIndex());
  SyncBlock();
  const TileQuery oldest = queries[0], newest = queries[kTileQueries - 1];
  for (int from = oldest.first_key / kKvSplitTokens * kKvSplitTokens; from < newest.num_keys;
       from += kKvSplitTokens) {
    const SplitKeys keys = {Larger(from, oldest.first_key),
                            Smaller(from + kKvSplitTokens, newest.num_keys)};
    if (keys.past - from <= kKvSplitTokens / 2) {
      TileScores<kType, 4>(args, tile, queries, keys, from, scores, stage);
    } else {
      TileScores<kType, 8>(args, tile, queries, keys, from, scores, stage);
    }
    TileSoftmax(queries, keys, scores, states);
    TileValues<kType, kLanes>(args, tile, queries, keys, scores, stage, states);
  }
  FinishTile(args, tile, queries, states);
}
