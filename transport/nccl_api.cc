#include "transport/nccl_api.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace dovetail::transport {
namespace {

constexpr char kDefaultLibrary[] = "libnccl.so.2";
constexpr char kLibraryVariable[] = "DOVETAIL_NCCL_LIBRARY";

absl::StatusOr<void*> OpenLibrary(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library != nullptr) return library;
  const char* const found = dlerror();
  const std::string reason = found != nullptr ? found : path;
  // Of the library itself: one that it needs may also be absent.
  if (absl::StartsWith(reason, absl::StrCat(path, ":")) &&
      absl::StrContains(reason, "No such file")) {
    return absl::NotFoundError(absl::StrCat("NCCL was not found (", reason,
                                            "): install it, or say ", "in ", kLibraryVariable,
                                            " which file it is"));
  }
  return absl::FailedPreconditionError(absl::StrCat("NCCL cannot be opened: ", reason));
}

// Looks functions up and keeps what was not found.
class Symbols {
 public:
  explicit Symbols(void* library) : library_(library) {}

  template <typename Fn>
  void Find(const char* name, Fn* function) {
    *function = reinterpret_cast<Fn>(dlsym(library_, name));
    if (*function == nullptr) missing_.push_back(name);
  }
  absl::Status Check(const std::string& path) const {
    if (missing_.empty()) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat(path, " cannot be used as NCCL: it has no ", absl::StrJoin(missing_, ", ")));
  }

 private:
  void* const library_;
  std::vector<const char*> missing_;
};

// As NCCL_VERSION makes them: 2.8.4 is 2804, 2.18.1 is 21801.
std::string VersionText(int version) {
  const int major = version < 10000 ? 1000 : 10000;
  return absl::StrCat(version / major, ".", version % major / 100, ".", version % 100);
}

absl::Status CheckVersion(const std::string& path, NcclApi* api) {
  if (api->GetVersion(&api->version) != kNcclSuccess) {
    return absl::FailedPreconditionError(absl::StrCat(path, " does not tell NCCL's version"));
  }
  if (api->version >= kNcclOldestVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      path, " is NCCL ", VersionText(api->version),
      ", which is too old: ", VersionText(kNcclOldestVersion), " or a later one is needed"));
}

absl::Status FindFunctions(const std::string& path, void* library, NcclApi* api) {
  // By itself first: an old library is better named by its age than by what it lacks.
  Symbols version(library);
  version.Find("ncclGetVersion", &api->GetVersion);
  DT_RETURN_IF_ERROR(version.Check(path));
  DT_RETURN_IF_ERROR(CheckVersion(path, api));
  Symbols symbols(library);
  symbols.Find("ncclGetUniqueId", &api->GetUniqueId);
  symbols.Find("ncclCommInitRankConfig", &api->CommInitRankConfig);
  symbols.Find("ncclCommGetAsyncError", &api->CommGetAsyncError);
  symbols.Find("ncclCommFinalize", &api->CommFinalize);
  symbols.Find("ncclCommDestroy", &api->CommDestroy);
  symbols.Find("ncclCommAbort", &api->CommAbort);
  symbols.Find("ncclSend", &api->Send);
  symbols.Find("ncclRecv", &api->Recv);
  symbols.Find("ncclGroupStart", &api->GroupStart);
  symbols.Find("ncclGroupEnd", &api->GroupEnd);
  symbols.Find("ncclGetErrorString", &api->GetErrorString);
  symbols.Find("ncclGetLastError", &api->GetLastError);
  return symbols.Check(path);
}

absl::StatusOr<NcclApi> OpenForProcess() {
  const char* const named = std::getenv(kLibraryVariable);
  return OpenNccl(named != nullptr && *named != '\0' ? named : kDefaultLibrary);
}

}  // namespace

absl::StatusOr<NcclApi> OpenNccl(const std::string& path) {
  DT_ASSIGN_OR_RETURN(void* const library, OpenLibrary(path));
  NcclApi api;
  if (absl::Status status = FindFunctions(path, library, &api); !status.ok()) {
    dlclose(library);
    return status;
  }
  return api;
}

absl::StatusOr<const NcclApi*> Nccl() {
  static const absl::StatusOr<NcclApi>* const api =
      new absl::StatusOr<NcclApi>(OpenForProcess());  // nothing closes it
  if (!api->ok()) return api->status();
  return &api->value();
}

}  // namespace dovetail::transport
