#include "coordinator/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/notification.h"
#include "base/log.h"
#include "coordinator/child_process.h"

namespace dovetail::coordinator {
namespace {

// Without pidfds (kernels before 5.3) the ends of children are looked for this often.
constexpr absl::Duration kReapInterval = absl::Milliseconds(200);

void WriteAll(int fd, const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // nobody reads our stderr
    done += static_cast<size_t>(n);
  }
}

struct Slot {
  std::string name;
  std::unique_ptr<ChildProcess> child;  // null between a death and the next start
  std::deque<absl::Time> deaths;        // since it was ready last
  int pauses = 0;                       // restarts in a row
  absl::Time start_at = absl::InfiniteFuture();
};

}  // namespace

struct Supervisor::Impl {
  SupervisorOptions options;
  std::vector<Slot> slots;  // of the thread
  UniqueFd wake;            // eventfd: one of the flags below has changed
  std::atomic<bool> ready{false};
  std::atomic<bool> expect_exit{false};
  std::atomic<bool> stop{false};
  bool given_up = false;  // of the thread
  absl::Notification started;
  absl::Status start_status;  // set before `started`
  std::thread thread;

  void Run();
  absl::Status StartAll();
  absl::Status StartSlot(Slot& slot);
  void Sleep(absl::Time deadline);
  void ForwardOutput(Slot& slot);
  void HandleDeath(Slot& slot, const std::string& how);
  void GiveUp(const absl::Status& reason);
  void StopAll();
  absl::Time NextStart() const;
};

void Supervisor::Impl::Run() {
  start_status = StartAll();
  const bool running = start_status.ok();
  started.Notify();
  while (running && !stop.load()) {
    Sleep(NextStart());
    if (ready.exchange(false)) {
      for (Slot& slot : slots) {
        slot.deaths.clear();
        slot.pauses = 0;
      }
    }
    for (Slot& slot : slots) {
      if (slot.child != nullptr) {
        ForwardOutput(slot);
        const std::optional<std::string> how = slot.child->TryReap();
        if (how.has_value()) HandleDeath(slot, *how);
      }
      const bool may_start = !given_up && !expect_exit.load() && !stop.load();
      if (slot.child == nullptr && may_start && absl::Now() >= slot.start_at) {
        if (absl::Status s = StartSlot(slot); !s.ok()) GiveUp(s);
      }
    }
  }
  StopAll();
}

absl::Status Supervisor::Impl::StartAll() {
  for (Slot& slot : slots) {
    if (absl::Status s = StartSlot(slot); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status Supervisor::Impl::StartSlot(Slot& slot) {
  auto child = ChildProcess::Spawn(options.worker_binary, options.arguments(slot.name));
  if (!child.ok()) return child.status();
  slot.child = *std::move(child);
  slot.start_at = absl::InfiniteFuture();
  return absl::OkStatus();
}

void Supervisor::Impl::Sleep(absl::Time deadline) {
  std::vector<pollfd> fds = {{wake.get(), POLLIN, 0}};
  for (const Slot& slot : slots) {
    if (slot.child == nullptr) continue;
    if (slot.child->end_fd() >= 0) {
      fds.push_back({slot.child->end_fd(), POLLIN, 0});
    } else {
      deadline = std::min(deadline, absl::Now() + kReapInterval);
    }
    if (slot.child->output_fd() >= 0) fds.push_back({slot.child->output_fd(), POLLIN, 0});
  }
  int timeout_ms = -1;
  if (deadline != absl::InfiniteFuture()) {
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    timeout_ms = static_cast<int>(absl::ToInt64Milliseconds(left)) + 1;
  }
  ::poll(fds.data(), fds.size(), timeout_ms);
  uint64_t count = 0;
  if (::read(wake.get(), &count, sizeof(count)) < 0) return;  // not woken by a flag
}

void Supervisor::Impl::ForwardOutput(Slot& slot) {
  const std::string output = slot.child->ReadOutput();
  if (!output.empty()) WriteAll(STDERR_FILENO, output);
}

void Supervisor::Impl::HandleDeath(Slot& slot, const std::string& how) {
  ForwardOutput(slot);
  const std::string tail(absl::StripAsciiWhitespace(slot.child->log_tail()));
  slot.child = nullptr;
  if (stop.load() || expect_exit.load() || given_up) return;
  const absl::Time now = absl::Now();
  slot.deaths.push_back(now);
  while (now - slot.deaths.front() > options.give_up_window) slot.deaths.pop_front();
  if (static_cast<int>(slot.deaths.size()) >= options.give_up_deaths) {
    GiveUp(absl::UnavailableError(absl::StrCat("worker ", slot.name, " died ", slot.deaths.size(),
                                               " times without becoming ready (", how, ")",
                                               tail.empty() ? "" : "; it printed last:\n", tail)));
    return;
  }
  absl::Duration pause = absl::ZeroDuration();
  if (slot.pauses > 0) {
    pause =
        std::min(options.longest_pause, options.first_pause * (1 << std::min(slot.pauses - 1, 16)));
  }
  ++slot.pauses;
  slot.start_at = now + pause;
  LogWarn(absl::StrCat("worker ", slot.name, " ended (", how, "); starting it again",
                       pause > absl::ZeroDuration() ? " in " : "",
                       pause > absl::ZeroDuration() ? absl::FormatDuration(pause) : ""));
}

void Supervisor::Impl::GiveUp(const absl::Status& reason) {
  if (given_up) return;
  given_up = true;
  if (options.on_give_up) options.on_give_up(reason);
}

void Supervisor::Impl::StopAll() {
  for (Slot& slot : slots) {
    if (slot.child != nullptr) slot.child->Signal(SIGTERM);
  }
  absl::Time kill_at = absl::Now() + options.kill_after;
  auto running = [this] {
    return std::any_of(slots.begin(), slots.end(),
                       [](const Slot& slot) { return slot.child != nullptr; });
  };
  while (running()) {
    for (Slot& slot : slots) {
      if (slot.child == nullptr) continue;
      ForwardOutput(slot);
      if (!slot.child->TryReap().has_value()) continue;
      ForwardOutput(slot);
      slot.child = nullptr;
    }
    if (!running()) break;
    if (absl::Now() >= kill_at) {
      for (Slot& slot : slots) {
        if (slot.child == nullptr) continue;
        LogWarn(absl::StrCat("worker ", slot.name, " does not end: killing it"));
        slot.child->Signal(SIGKILL);
      }
      kill_at = absl::InfiniteFuture();
    }
    Sleep(kill_at);
  }
}

absl::Time Supervisor::Impl::NextStart() const {
  absl::Time next = absl::InfiniteFuture();
  if (given_up || expect_exit.load()) return next;
  for (const Slot& slot : slots) {
    if (slot.child == nullptr) next = std::min(next, slot.start_at);
  }
  return next;
}

Supervisor::Supervisor() : impl_(std::make_unique<Impl>()) {}

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Start(SupervisorOptions options) {
  auto supervisor = std::unique_ptr<Supervisor>(new Supervisor());
  Impl& impl = *supervisor->impl_;
  impl.options = std::move(options);
  for (const std::string& name : impl.options.workers) impl.slots.emplace_back().name = name;
  impl.wake = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!impl.wake.valid()) return ErrnoStatus(errno, "eventfd", "supervisor");
  impl.thread = std::thread([&impl] { impl.Run(); });
  impl.started.WaitForNotification();
  if (!impl.start_status.ok()) return impl.start_status;
  return supervisor;
}

Supervisor::~Supervisor() { Stop(); }

void Supervisor::NoteReady() {
  impl_->ready.store(true);
  ::eventfd_write(impl_->wake.get(), 1);
}

void Supervisor::ExpectExit() {
  impl_->expect_exit.store(true);
  ::eventfd_write(impl_->wake.get(), 1);
}

void Supervisor::Stop() {
  impl_->stop.store(true);
  if (impl_->wake.valid()) ::eventfd_write(impl_->wake.get(), 1);
  if (impl_->thread.joinable()) impl_->thread.join();
}

}  // namespace dovetail::coordinator
