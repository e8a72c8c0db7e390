#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail {
namespace {

std::shared_ptr<spdlog::logger> MakeLogger(absl::string_view component) {
  auto logger = std::make_shared<spdlog::logger>(std::string(component),
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %L %n: %v");
  logger->flush_on(spdlog::level::trace);
  return logger;
}

// Never destroyed: threads may log while the process exits.
std::shared_ptr<spdlog::logger>& Logger() {
  static auto* logger = new std::shared_ptr<spdlog::logger>(MakeLogger("dovetail"));
  return *logger;
}

void Log(spdlog::level::level_enum level, absl::string_view message) {
  Logger()->log(level, spdlog::string_view_t(message.data(), message.size()));
}

absl::StatusOr<spdlog::level::level_enum> ParseLevel(absl::string_view level) {
  constexpr struct {
    absl::string_view name;
    spdlog::level::level_enum level;
  } kLevels[] = {{"debug", spdlog::level::debug},
                 {"info", spdlog::level::info},
                 {"warn", spdlog::level::warn},
                 {"error", spdlog::level::err},
                 {"off", spdlog::level::off}};
  for (const auto& entry : kLevels) {
    if (entry.name == level) return entry.level;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("log level \"", level, "\": expected debug, info, warn, error or off"));
}

}  // namespace

absl::Status InitLogging(absl::string_view component, absl::string_view level) {
  DT_ASSIGN_OR_RETURN(const spdlog::level::level_enum parsed, ParseLevel(level));
  Logger() = MakeLogger(component);
  Logger()->set_level(parsed);
  return absl::OkStatus();
}

absl::Status SetLogLevel(absl::string_view level) {
  DT_ASSIGN_OR_RETURN(const spdlog::level::level_enum parsed, ParseLevel(level));
  Logger()->set_level(parsed);
  return absl::OkStatus();
}

void LogDebug(absl::string_view message) { Log(spdlog::level::debug, message); }
void LogInfo(absl::string_view message) { Log(spdlog::level::info, message); }
void LogWarn(absl::string_view message) { Log(spdlog::level::warn, message); }
void LogError(absl::string_view message) { Log(spdlog::level::err, message); }

}  // namespace dovetail
