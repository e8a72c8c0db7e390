// Copies between the host's pinned memory and the device's, several arrays by one launch, and the
// signal that tells the host of their end: what a step's graph begins and ends with.

constexpr int kCopyThreads = 128;
constexpr int kCopyLoads = 4;  // of 16 bytes, that a thread has on their way over the bus

// What this block, number BlockIndex() of `blocks`, has of a piece.
DT_DEVICE void CopyOne(const CopyPiece& piece, int32_t blocks) {
  int64_t bytes = piece.bytes;
  if (piece.count != nullptr) bytes += *piece.count * piece.count_bytes;
  const char* from = static_cast<const char*>(piece.from);
  char* to = static_cast<char*>(piece.to);
  // Of 16 bytes: a piece has fewer than 2^31 of them, as no GPU has 32 GiB of one step's rows.
  const int32_t vectors = static_cast<int32_t>(bytes / 16), threads = blocks * BlockThreads();
  const int32_t thread = BlockIndex() * BlockThreads() + ThreadIndex();
  for (int32_t first = thread; first < vectors; first += kCopyLoads * threads) {
    Int4 v[kCopyLoads] = {};
    DT_UNROLL
    for (int i = 0; i < kCopyLoads; ++i) {
      const int32_t at = first + i * threads;
      if (at < vectors) v[i] = LoadVector<Int4>(from + int64_t{16} * at);
    }
    DT_UNROLL
    for (int i = 0; i < kCopyLoads; ++i) {
      const int32_t at = first + i * threads;
      if (at < vectors) StoreVector16(to + int64_t{16} * at, v[i]);
    }
  }
  const int64_t word = int64_t{16} * vectors + 4 * thread;
  if (word < bytes) {
    *reinterpret_cast<int32_t*>(to + word) = *reinterpret_cast<const int32_t*>(from + word);
  }
}

// A row of `blocks` blocks for each piece, or one row for none. Whichever block is the last to be
// done raises the flag.
DT_KERNEL void CopyPiecesKernel(CopyPieces args, DoneSignal signal, int32_t blocks) {
  if (BlockIndexY() < args.num) CopyOne(args.pieces[BlockIndexY()], blocks);
  if (signal.flag == nullptr) return;
  SyncBlock();
  if (ThreadIndex() != 0) return;
  FenceForHost();
  const int32_t all = blocks * Larger(args.num, 1);
  if (CountUp(signal.blocks) + 1 < all) return;
  FenceForHost();
  *signal.blocks = 0;
  const uint64_t raised = *signal.raised + 1;
  *signal.raised = raised;
  StoreForHost(signal.flag, raised);
}
