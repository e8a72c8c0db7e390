#include "coordinator/grammar/mask_thread.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/sampling_params.h"

namespace dovetail::coordinator {

class MaskThread::Session : public TokenConstraint, public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<MaskThread> thread, const xgrammar::CompiledGrammar& grammar,
          bool ends_by_itself, std::function<void()> wake)
      : thread_(std::move(thread)),
        wake_(std::move(wake)),
        matcher_(grammar, std::nullopt, ends_by_itself),
        mask_(MaskWords(thread_->vocab_size_)) {}

  void Accept(int32_t token) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      token_ = token;
      ready_ = false;
    }
    thread_->Post(shared_from_this());
  }

  bool WaitReady(absl::Duration at_most) override {
    std::unique_lock<std::mutex> lock(mutex_);
    return ready_changed_.wait_until(lock, absl::ToChronoTime(absl::Now() + at_most),
                                     [this] { return ready_; });
  }

  const Next& next() const override { return next_; }

  // The mask thread's.
  void Compute() {
    try {
      ComputeNext();
    } catch (const std::exception& error) {
      next_.status = absl::InternalError(absl::StrCat("the grammar failed: ", error.what()));
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ready_ = true;
      ready_changed_.notify_all();
    }
    if (wake_) wake_();
  }

 private:
  void ComputeNext() {
    if (token_ >= 0 && !matcher_.AcceptToken(token_)) {
      next_.status = absl::InternalError(
          absl::StrCat("token ", token_, " was drawn, which the grammar does not allow"));
      return;
    }
    next_.finished = matcher_.IsTerminated();
    next_.mask.clear();
    if (next_.finished) return;
    int64_t shape = static_cast<int64_t>(mask_.size());
    DLTensor tensor = {};
    tensor.data = mask_.data();
    tensor.device = {kDLCPU, 0};
    tensor.ndim = 1;
    tensor.dtype = xgrammar::GetBitmaskDLType();
    tensor.shape = &shape;
    if (matcher_.FillNextTokenBitmask(&tensor)) next_.mask = mask_;
  }

  const std::shared_ptr<MaskThread> thread_;
  const std::function<void()> wake_;
  xgrammar::GrammarMatcher matcher_;
  std::vector<uint32_t> mask_;
  Next next_;           // written while not ready
  int32_t token_ = -1;  // to accept; -1: none, at the beginning

  std::mutex mutex_;
  std::condition_variable ready_changed_;
  bool ready_ = false;  // guarded by mutex_
};

std::shared_ptr<MaskThread> MaskThread::Start(int vocab_size) {
  std::shared_ptr<MaskThread> result(new MaskThread(vocab_size));
  result->thread_ = std::thread([raw = result.get()] { raw->Run(); });
  return result;
}

void MaskThread::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    posted_.notify_all();
  }
  thread_.join();
}

std::shared_ptr<TokenConstraint> MaskThread::NewSession(const xgrammar::CompiledGrammar& grammar,
                                                        bool ends_by_itself,
                                                        std::function<void()> wake) {
  auto session =
      std::make_shared<Session>(shared_from_this(), grammar, ends_by_itself, std::move(wake));
  Post(session);
  return session;
}

void MaskThread::Post(std::shared_ptr<Session> session) {
  std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back(std::move(session));
  posted_.notify_one();
}

void MaskThread::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    posted_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) break;
    const std::shared_ptr<Session> session = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    session->Compute();
    lock.lock();
  }
  queue_.clear();
}

}  // namespace dovetail::coordinator
