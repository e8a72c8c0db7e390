#include "transport/run_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <random>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/deadline.h"
#include "base/status_macros.h"

namespace dovetail::transport {
namespace {

constexpr char kSocketName[] = "socket";
constexpr char kDefaultPrefix[] = "dovetail-";
constexpr size_t kIdDigits = 32;
// A directory without a lock file may belong to a coordinator that has just begun.
constexpr int kNewDirSeconds = 60;

std::string RandomHex(size_t digits) {
  std::random_device random;
  std::string text;
  while (text.size() < digits) absl::StrAppendFormat(&text, "%08x", random());
  text.resize(digits);
  return text;
}

bool IsId(absl::string_view text) {
  if (text.size() != kIdDigits) return false;
  for (const char c : text) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return false;
  }
  return true;
}

// Different names become different ones.
std::string Escaped(absl::string_view name) {
  std::string escaped;
  for (const char c : name) {
    const bool stays = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_';
    if (stays || c == '-') {
      escaped.push_back(c);
    } else {
      absl::StrAppendFormat(&escaped, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return escaped;
}

// "cpu:0" -> "cpu-0", "org/tiny/cpu:0" -> "org%2Ftiny%2Fcpu-0".
std::string FileNameOf(absl::string_view worker) {
  const size_t colon = worker.rfind(':');
  if (colon == absl::string_view::npos) return Escaped(worker);
  return absl::StrCat(Escaped(worker.substr(0, colon)), "-", Escaped(worker.substr(colon + 1)));
}

bool IsExchangeName(absl::string_view name) { return absl::StartsWith(name, "exchange-"); }
bool IsSegmentName(absl::string_view name) {
  return absl::EndsWith(name, ".weights") || absl::EndsWith(name, ".kv");
}
bool IsOurs(absl::string_view name) {
  return name == "id" || name == "id.tmp" || name == "lock" || name == kSocketName ||
         IsExchangeName(name) || IsSegmentName(name);
}

std::vector<std::string> ListDirectory(const std::string& path) {
  std::vector<std::string> names;
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) return names;
  while (const dirent* entry = readdir(dir)) {
    const absl::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  closedir(dir);
  return names;
}

template <typename Predicate>
void RemoveFiles(const std::string& path, Predicate predicate) {
  for (const std::string& name : ListDirectory(path)) {
    if (predicate(name)) unlink(absl::StrCat(path, "/", name).c_str());
  }
}

bool IsLocked(const std::string& path) {
  const absl::StatusOr<UniqueFd> fd = OpenFile(path, O_RDONLY | O_NOFOLLOW);
  if (!fd.ok()) return !absl::IsNotFound(fd.status());
  return flock(fd->get(), LOCK_EX | LOCK_NB) != 0;
}

absl::Status MakeDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  const int error = errno;
  struct stat info;
  if (error == EEXIST && stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("run directory ", path, ": is not a directory"));
  }
  return Annotate(ErrnoStatus(error, "mkdir", path), "run directory");
}

// Takes the lock file, and makes sure that it is still the one in the directory: a coordinator that
// is just removing the directory may have unlinked it.
absl::StatusOr<UniqueFd> TakeLock(const std::string& dir) {
  const std::string path = dir + "/lock";
  for (;;) {
    DT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW));
    if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "flock", path);
      const absl::StatusOr<std::string> holder = ReadFile(path, 64);
      return absl::FailedPreconditionError(
          absl::StrCat("run directory ", dir, ": another coordinator holds it (process ",
                       holder.ok() ? absl::StripAsciiWhitespace(*holder) : "unknown", ")"));
    }
    struct stat locked, named;
    if (fstat(fd.get(), &locked) != 0 || stat(path.c_str(), &named) != 0 ||
        locked.st_ino != named.st_ino) {
      continue;
    }
    const std::string pid = absl::StrCat(getpid(), "\n");
    if (ftruncate(fd.get(), 0) != 0 ||
        pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
      return ErrnoStatus(errno, "write", path);
    }
    return fd;
  }
}

// True for the directory of a job of this user that has surely ended: its process is gone, nobody
// holds its lock and no worker has a segment of it open.
bool IsLeftover(const std::string& path, absl::string_view name) {
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '-');
  int pid = 0;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[1], &pid) || pid <= 0) return false;
  struct stat info;
  if (lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != geteuid()) {
    return false;
  }
  if (kill(pid, 0) == 0 || errno != ESRCH) return false;
  struct stat lock;
  if (lstat((path + "/lock").c_str(), &lock) != 0) {
    return time(nullptr) - info.st_mtime > kNewDirSeconds;
  }
  for (const std::string& file : ListDirectory(path)) {
    if ((file == "lock" || IsSegmentName(file)) && IsLocked(path + "/" + file)) return false;
  }
  return true;
}

void RemoveLeftovers(const std::string& parent) {
  for (const std::string& name : ListDirectory(parent)) {
    if (!absl::StartsWith(name, kDefaultPrefix)) continue;
    const std::string path = absl::StrCat(parent, "/", name);
    if (!IsLeftover(path, name)) continue;
    RemoveFiles(path, IsOurs);
    rmdir(path.c_str());
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunDir>> RunDir::Create(const std::string& path) {
  DT_RETURN_IF_ERROR(MakeDirectory(path));
  std::unique_ptr<RunDir> dir(new RunDir());
  dir->path_ = path;
  DT_ASSIGN_OR_RETURN(dir->lock_, TakeLock(path));
  RemoveFiles(path, IsExchangeName);
  const std::string id_path = path + "/id";
  const absl::StatusOr<std::string> found = ReadFile(id_path, kIdDigits);
  if (found.ok() && IsId(*found)) {
    dir->id_ = *found;
    return dir;
  }
  dir->id_ = RandomHex(kIdDigits);
  DT_RETURN_IF_ERROR(WriteFileAtomically(id_path, dir->id_));
  return dir;
}

absl::StatusOr<std::unique_ptr<RunDir>> RunDir::Open(const std::string& path, int timeout_ms) {
  const Deadline deadline(absl::Milliseconds(timeout_ms));
  for (;;) {
    const absl::StatusOr<std::string> id = ReadFile(path + "/id", kIdDigits);
    if (id.ok() && IsId(*id)) {
      std::unique_ptr<RunDir> dir(new RunDir());
      dir->path_ = path;
      dir->id_ = *id;
      return dir;
    }
    if (absl::IsPermissionDenied(id.status())) return Annotate(id.status(), "run directory");
    if (deadline.Passed()) {
      return absl::DeadlineExceededError(
          absl::StrCat("run directory ", path, ": no coordinator after ", timeout_ms, " ms (",
                       id.ok() ? "its id file is malformed" : id.status().message(),
                       "); is one running with the same --run-dir?"));
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
}

std::string RunDir::DefaultPath() {
  return DefaultPathUnder(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
}

std::string RunDir::DefaultPathUnder(const std::string& parent) {
  RemoveLeftovers(parent);
  return absl::StrCat(parent, "/", kDefaultPrefix, getpid(), "-", RandomHex(8));
}

std::string RunDir::WeightsPath(absl::string_view worker) const {
  return absl::StrCat(path_, "/", FileNameOf(worker), ".weights");
}

std::string RunDir::KvPath(absl::string_view worker) const {
  return absl::StrCat(path_, "/", FileNameOf(worker), ".kv");
}

std::string RunDir::ExchangePath(uint64_t epoch, absl::string_view model) const {
  return absl::StrCat(path_, "/exchange-", Escaped(model), model.empty() ? "" : "-", epoch);
}

std::string RunDir::SocketPath() const { return absl::StrCat(path_, "/", kSocketName); }

void RunDir::RemoveAll() {
  RemoveFiles(path_, IsOurs);
  rmdir(path_.c_str());
}

}  // namespace dovetail::transport
