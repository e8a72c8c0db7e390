// Scores of latent attention: a token's one vector lies by itself, since it is value as well as
// key. Included once, inside the instruction set's namespace, after attention_tiles.inl.h.
//
// Lanes are queries here, of which there are always many; so it is queries that are transposed,
// once for all keys. A score is the same sum in the same order as in attention_tiles.inl.h.

constexpr int kLanes = 16;

// A batch's queries, [groups of kLanes][key_dim][kLanes], with zeros in lanes that have none.
static inline void TransposeQueries(const QueryBatch& batch, float* to) {
  for (int first = 0; first < batch.count; first += kLanes) {
    for (int d = 0; d < batch.key_dim; d += kLanes) {
      const int n = batch.key_dim - d < kLanes ? batch.key_dim - d : kLanes;
      F rows[kLanes];
      for (int t = 0; t < kLanes; ++t) {
        rows[t] = first + t < batch.count ? LoadUpTo(batch.q[first + t] + d, n, 0.0f) : Zero();
      }
      Transpose16(rows);
      for (int i = 0; i < n; ++i, to += kLanes) Store(to, rows[i]);
    }
  }
}

// kLanes keys of a block from `first` on as f32, in pieces of as many elements:
// [pieces][key][kLanes]. So all that a tile reads lies at fixed distances.
template <typename Elements>
static inline void WidenPieces(const KvPart& part, int first, float* to) {
  for (int d = 0; d < part.dim; d += kLanes) {
    const int n = part.dim - d;
    DT_UNROLL for (int key = first; key < first + kLanes; ++key, to += kLanes) {
      const uint8_t* from = part.data + ElementIndex(part, key, d) * Elements::kBytes;
      Store(to, n < kLanes ? LoadOfToken(part, key, d, n) : Elements::Get(from));
    }
  }
}
static inline void WidenScaledPieces(const KvPart& part, int first, float* to) {
  constexpr int kPiece = kLanes * kLanes;
  const int whole = part.dim / kKvScaleElements * kKvScaleElements;
  for (int d = 0; d < whole; d += kKvScaleElements, to += 2 * kPiece) {
    DT_UNROLL for (int key = 0; key < kLanes; ++key) {
      const uint8_t* from = part.data + ElementIndex(part, first + key, d);
      const F scale = Set1(HalfAt(ScaleOf(part, first + key, d)));
      Store(to + key * kLanes, Mul(ToFloat(LoadI8(from)), scale));
      Store(to + kPiece + key * kLanes, Mul(ToFloat(LoadI8(from + kLanes)), scale));
    }
  }
  for (int d = whole; d < part.dim; d += kLanes) {
    const int n = part.dim - d < kLanes ? part.dim - d : kLanes;
    for (int key = first; key < first + kLanes; ++key, to += kLanes) {
      Store(to, LoadOfToken(part, key, d, n));
    }
  }
}
static inline void WidenKeyPieces(const KvPart& part, int first, float* to) {
  switch (part.type) {
    case KvType::kF32:
      return WidenPieces<F32Elements>(part, first, to);
    case KvType::kF16:
      return WidenPieces<F16Elements>(part, first, to);
    case KvType::kBF16:
      return WidenPieces<Bf16Elements>(part, first, to);
    case KvType::kQ8_0:
      return WidenScaledPieces(part, first, to);
  }
}

// What is asked for while tiles multiply: `bytes` from `from` on, or nothing where that is null, at
// every other element.
struct LatentAhead {
  const uint8_t* from;
  int bytes;
};

// scores[t][key] = scale * (q_t . key), for kLanes queries, transposed, and as many keys, in
// pieces.
static inline void ScoreLatentTile(const float* q, const float* keys, int dim, LatentAhead ahead,
                                   float scale, float* scores) {
  F rows[kLanes];  // [key], lanes are queries
  for (int first = 0; first < kLanes; first += kLatentKeys) {
    F sum[kLatentKeys];
    DT_UNROLL for (F& s : sum) s = Zero();
    const float* piece = keys + first * kLanes;
    const float* query = q;
    for (int d = 0; d < dim; d += kLanes, piece += kLanes * kLanes) {
      const int n = dim - d < kLanes ? dim - d : kLanes;
      for (int i = 0; i < n; ++i, query += kLanes) {
        if (ahead.from != nullptr && i % 2 == 0) {
          AskFor(ahead.from, int64_t{d + i} / 2 * ahead.bytes, ahead.bytes);
        }
        const F of_queries = Load(query);
        DT_UNROLL for (int k = 0; k < kLatentKeys; ++k) {
          sum[k] = FmaBroadcast(piece + k * kLanes + i, of_queries, sum[k]);
        }
      }
    }
    ahead.from = nullptr;
    DT_UNROLL for (int k = 0; k < kLatentKeys; ++k) rows[first + k] = Mul(sum[k], Set1(scale));
  }
  Transpose16(rows);
  for (int t = 0; t < kLanes; ++t) Store(scores + int64_t{t} * kKvSplitTokens, rows[t]);
}

// The scores of a block's keys from `key` on, for the queries from `begin` on that see any of them.
// Asks for the block at `next` meanwhile, unless it is null.
static inline void ScoreLatentBlock(const QueryBatch& batch, int begin, int key, const KvPart& part,
                                    const uint8_t* next, float scale, float* scores) {
  const int64_t half = KvPartBytes(part.type, part.dim) / 2;
  const int bytes = static_cast<int>(2 * half / part.dim);
  const int past = batch.num_keys[batch.active - 1];
  for (int at = 0; at < kKvBlockTokens && key + at < past; at += kLanes) {
    WidenKeyPieces(part, at, batch.scratch.keys);
    LatentAhead ahead = {next == nullptr ? nullptr : next + at / kLanes * half, bytes};
    for (int first = begin / kLanes * kLanes; first < batch.active; first += kLanes) {
      ScoreLatentTile(batch.scratch.queries + int64_t{first} * batch.key_dim, batch.scratch.keys,
                      batch.key_dim, ahead, scale, scores + int64_t{first} * kKvSplitTokens + at);
      ahead.from = nullptr;
    }
  }
}
