#include "coordinator/http/http_message.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "coordinator/http/random_id.h"

namespace dovetail::coordinator {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxLoggedPathBytes = 200;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Control characters as \xNN: a client must not be able to forge a line of the log.
std::string OneLine(absl::string_view text) {
  std::string line;
  for (const char c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      absl::StrAppendFormat(&line, "\\x%02x", static_cast<unsigned char>(c));
    } else {
      line.push_back(c);
    }
  }
  return line;
}

}  // namespace

HttpResponse JsonResponse(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.headers.emplace_back("Content-Type", "application/json");
  response.body = std::move(body);
  return response;
}

bool PercentDecode(absl::string_view text, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out->push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = HexDigit(text[i + 1]);
    const int low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return false;
    out->push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return true;
}

std::string QueryParameter(absl::string_view query, absl::string_view name) {
  for (const absl::string_view part : absl::StrSplit(query, '&')) {
    const std::pair<absl::string_view, absl::string_view> parameter =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    std::string value;
    if (parameter.first == name && PercentDecode(parameter.second, &value)) return value;
  }
  return "";
}

std::string ChooseRequestId(absl::string_view offered) {
  bool usable = !offered.empty() && offered.size() <= kMaxRequestIdBytes;
  for (char c : offered) usable = usable && absl::ascii_isgraph(static_cast<unsigned char>(c));
  return usable ? std::string(offered) : absl::StrCat("req_", RandomId());
}

std::string RequestLogLine(absl::string_view method, absl::string_view path, int status,
                           absl::Duration taken, absl::string_view note,
                           absl::string_view request_id) {
  return absl::StrCat("http ", method, " ", OneLine(path.substr(0, kMaxLoggedPathBytes)), " ",
                      status, " ", absl::StrFormat("%.1f", absl::ToDoubleMilliseconds(taken)),
                      " ms, ", note.empty() ? "" : OneLine(note), note.empty() ? "" : ", ",
                      request_id);
}

void LogHttpRequest(absl::string_view method, absl::string_view path, int status,
                    absl::Duration taken, absl::string_view note, absl::string_view request_id) {
  const std::string line = RequestLogLine(method, path, status, taken, note, request_id);
  const bool probe = (path == "/health" || path == "/metrics") && status == 200;
  probe ? LogDebug(line) : LogInfo(line);
}

}  // namespace dovetail::coordinator
