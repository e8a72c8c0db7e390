// SourceReader: has the kernel read what is packed next of the model's file, from a thread of its
// own, so that a disk is busy while memory is made and while rows are packed. Page faults alone
// keep too little in flight to use a disk's speed, and asking for much at once waits for the disk.
//
// Only advice: what was not read in time is read when it is touched. The thread ends with the
// object, which the file outlives.
#ifndef DOVETAIL_WORKER_SOURCE_READER_H_
#define DOVETAIL_WORKER_SOURCE_READER_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "model/gguf/gguf_file.h"

namespace dovetail::worker {

class SourceReader {
 public:
  // Bytes [begin, end) of a tensor.
  struct Part {
    const model::GgufTensor* tensor;
    int64_t begin, end;
  };
  // In the order in which they are packed. Begins at once, kMostAhead bytes of them at most.
  SourceReader(const model::GgufFile& file, std::vector<Part> parts);
  ~SourceReader();
  SourceReader(const SourceReader&) = delete;
  SourceReader& operator=(const SourceReader&) = delete;

  // The first `bytes` of the parts are packed.
  void SetPacked(int64_t bytes);

  // What waits in the page cache beside the weights themselves: a second of a fast disk.
  static constexpr int64_t kMostAhead = int64_t{2} << 30;

 private:
  void Run();
  // False: it is to stop.
  bool AwaitTurn(int64_t asked);

  const model::GgufFile& file_;
  const std::vector<Part> parts_;
  std::mutex mutex_;  // of the next two
  int64_t packed_ = 0;
  bool stops_ = false;
  std::condition_variable changed_;
  std::thread thread_;  // last: everything it uses exists before it starts
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_SOURCE_READER_H_
