// MaskThread: computes the masks of all constraints, one after the other.
//
// A session is a grammar's matcher and what it allows next. It is owned by its sequence and, while
// a mask is being computed, by the thread. Thread-safe.
#ifndef DOVETAIL_COORDINATOR_GRAMMAR_MASK_THREAD_H_
#define DOVETAIL_COORDINATOR_GRAMMAR_MASK_THREAD_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "coordinator/token_constraint.h"
#include "xgrammar/matcher.h"

namespace dovetail::coordinator {

class MaskThread : public std::enable_shared_from_this<MaskThread> {
 public:
  static std::shared_ptr<MaskThread> Start(int vocab_size);
  // Nothing is computed any more: constraints stay unready. Joins.
  void Stop();

  std::shared_ptr<TokenConstraint> NewSession(const xgrammar::CompiledGrammar& grammar,
                                              bool ends_by_itself, std::function<void()> wake);

 private:
  class Session;
  explicit MaskThread(int vocab_size) : vocab_size_(vocab_size) {}
  void Post(std::shared_ptr<Session> session);
  void Run();

  const int vocab_size_;
  std::mutex mutex_;
  std::condition_variable posted_;
  std::deque<std::shared_ptr<Session>> queue_;  // guarded by mutex_
  bool stopping_ = false;                       // guarded by mutex_
  std::thread thread_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_GRAMMAR_MASK_THREAD_H_
