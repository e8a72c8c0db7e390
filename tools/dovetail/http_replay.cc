#include "tools/dovetail/http_replay.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/posix.h"
#include "base/status_macros.h"

namespace dovetail::tools {
namespace {

using nlohmann::json;

constexpr size_t kMostHeadBytes = 64 << 10;
constexpr size_t kMostEventBytes = 4 << 20;
constexpr char kNoEnd[] = "the answer ended without [DONE]";

std::string MakeRequest(const HttpTarget& target, const ReplayRequest& request) {
  const json body = {{"prompt", request.prompt}, {"max_tokens", request.max_tokens},
                     {"temperature", 0},         {"ignore_eos", true},
                     {"stream", true},           {"stream_options", {{"include_usage", true}}}};
  const std::string text = body.dump();
  return absl::StrCat("POST ", target.path, " HTTP/1.1\r\nHost: ", target.host, ":", target.port,
                      "\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ",
                      text.size(), "\r\n\r\n", text);
}

struct AddressDeleter {
  void operator()(addrinfo* address) const { ::freeaddrinfo(address); }
};
using Address = std::unique_ptr<addrinfo, AddressDeleter>;

absl::StatusOr<Address> Resolve(const HttpTarget& target) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("--url: ", target.host, ":", target.port, ": ", ::gai_strerror(error)));
  }
  return Address(found);
}

absl::Status WaitFor(int fd, int16_t events, absl::Time until) {
  pollfd poll = {fd, events, 0};
  while (true) {
    // Rounded up: an answer that comes in the last part of a millisecond is in time.
    const int64_t left =
        absl::ToInt64Milliseconds(absl::Ceil(until - absl::Now(), absl::Milliseconds(1)));
    if (left <= 0) return absl::DeadlineExceededError("no answer in time");
    const int ready = ::poll(&poll, 1, static_cast<int>(std::min<int64_t>(left, 1 << 30)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "poll", "the connection");
  }
}

absl::Status Send(int fd, absl::string_view bytes, absl::Time until) {
  while (!bytes.empty()) {
    DT_RETURN_IF_ERROR(WaitFor(fd, POLLOUT, until));
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      return ErrnoStatus(errno, "send", "the connection");
    }
    if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> Connect(const addrinfo* addresses) {
  int error = 0;
  for (const addrinfo* a = addresses; a != nullptr; a = a->ai_next) {
    UniqueFd fd(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    if (fd.valid() && ::connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0) {
      const int on = 1;
      ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      return fd;
    }
    error = errno;
  }
  return ErrnoStatus(error, "connect to", "the server");
}

// DeadlineExceeded: `until` came first; `reader` has what came before it.
absl::Status Converse(const addrinfo* addresses, const std::string& request, absl::Time until,
                      AnswerReader* reader) {
  DT_ASSIGN_OR_RETURN(const UniqueFd fd, Connect(addresses));
  DT_RETURN_IF_ERROR(Send(fd.get(), request, until));
  char buffer[16384];
  while (!reader->done()) {
    DT_RETURN_IF_ERROR(WaitFor(fd.get(), POLLIN, until));
    const ssize_t size = ::recv(fd.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (size < 0) return ErrnoStatus(errno, "receive from", "the server");
    if (size == 0) return absl::UnavailableError(kNoEnd);
    DT_RETURN_IF_ERROR(reader->Read({buffer, static_cast<size_t>(size)}, absl::Now()));
  }
  return reader->answer().text_times.empty() ? absl::UnavailableError("the answer had no text")
                                             : absl::OkStatus();
}

absl::StatusOr<ReplayAnswer> Ask(const addrinfo* addresses, const std::string& request,
                                 absl::Time until) {
  AnswerReader reader;
  const absl::Time submitted = absl::Now();
  const absl::Status status = Converse(addresses, request, until, &reader);
  if (!status.ok() && !absl::IsDeadlineExceeded(status)) return status;
  ReplayAnswer answer = reader.answer();
  answer.submitted = submitted;
  answer.whole = status.ok();
  if (!answer.whole) answer.generated_tokens = static_cast<int>(answer.text_times.size());
  return answer;
}

}  // namespace

absl::StatusOr<HttpTarget> ParseHttpUrl(absl::string_view url) {
  const absl::Status bad = absl::InvalidArgumentError(
      absl::StrCat("--url must be as http://127.0.0.1:8080, got `", url, "`"));
  absl::string_view rest = url;
  if (!absl::ConsumePrefix(&rest, "http://")) return bad;
  const size_t slash = std::min(rest.find('/'), rest.size());
  const absl::string_view authority = rest.substr(0, slash);
  const size_t colon = authority.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return bad;
  int port = 0;
  if (!absl::SimpleAtoi(authority.substr(colon + 1), &port) || port < 1 || port > 65535) return bad;
  HttpTarget target;
  target.host = std::string(authority.substr(0, colon));
  if (absl::StartsWith(target.host, "[") && absl::EndsWith(target.host, "]")) {
    target.host = target.host.substr(1, target.host.size() - 2);
  }
  target.port = absl::StrCat(port);
  target.path = absl::StrCat(absl::StripSuffix(rest.substr(slash), "/"), "/v1/completions");
  return target;
}

absl::Status AnswerReader::Read(absl::string_view bytes, absl::Time now) {
  absl::StrAppend(&raw_, bytes);
  if (!has_head_) DT_RETURN_IF_ERROR(TakeHead());
  if (!has_head_) return absl::OkStatus();
  if (chunked_) {
    DT_RETURN_IF_ERROR(TakeChunks());
  } else {
    body_ += std::exchange(raw_, {});
  }
  if (refused_) {
    return absl::UnavailableError(absl::StrCat("the server refused: ", body_.substr(0, 500)));
  }
  DT_RETURN_IF_ERROR(TakeEvents(now));
  return ended_ && !done_ ? absl::UnavailableError(kNoEnd) : absl::OkStatus();
}

absl::Status AnswerReader::TakeHead() {
  const size_t end = raw_.find("\r\n\r\n");
  if (end == std::string::npos) {
    return raw_.size() > kMostHeadBytes ? absl::UnavailableError("the answer's head is too long")
                                        : absl::OkStatus();
  }
  const std::string head = absl::AsciiStrToLower(raw_.substr(0, end));
  raw_.erase(0, end + 4);
  if (!absl::StartsWith(head, "http/1.")) return absl::UnavailableError("the answer is not HTTP");
  has_head_ = true;
  chunked_ = absl::StrContains(head, "\r\ntransfer-encoding: chunked");
  refused_ = head.substr(std::min<size_t>(8, head.size()), 5) != " 200 ";
  if (refused_) body_ = absl::StrCat(head.substr(9, head.find("\r\n") - 9), " ");
  return absl::OkStatus();
}

absl::Status AnswerReader::TakeChunks() {
  if (ended_) raw_.clear();
  while (!raw_.empty()) {
    if (chunk_left_ == 0) {
      const size_t end = raw_.find("\r\n");
      if (end == std::string::npos) return absl::OkStatus();
      uint64_t size = 0;
      const std::string digits = raw_.substr(0, std::min(end, raw_.find(';')));
      if (!absl::SimpleHexAtoi(digits, &size) || size > kMostEventBytes) {
        return absl::UnavailableError(absl::StrCat("the answer has a bad chunk: ", digits));
      }
      raw_.erase(0, end + 2);
      if (size == 0) {
        ended_ = true;
        return absl::OkStatus();
      }
      chunk_left_ = size + 2;
    }
    const size_t taken = std::min(chunk_left_, raw_.size());
    const size_t content = chunk_left_ > 2 ? std::min(taken, chunk_left_ - 2) : 0;
    body_.append(raw_, 0, content);
    raw_.erase(0, taken);
    chunk_left_ -= taken;
  }
  return absl::OkStatus();
}

absl::Status AnswerReader::TakeEvents(absl::Time now) {
  size_t begin = 0;
  for (size_t end = body_.find('\n'); end != std::string::npos && !done_;
       begin = end + 1, end = body_.find('\n', begin)) {
    absl::string_view line(body_.data() + begin, end - begin);
    absl::ConsumeSuffix(&line, "\r");
    if (absl::ConsumePrefix(&line, "data: ")) {
      DT_RETURN_IF_ERROR(TakeEvent(line, now));
    } else if (absl::StartsWith(line, "error: ")) {
      return absl::UnavailableError(absl::StrCat("the stream has an error: ", line));
    }
  }
  body_.erase(0, begin);
  return body_.size() > kMostEventBytes ? absl::UnavailableError("an event is too long")
                                        : absl::OkStatus();
}

absl::Status AnswerReader::TakeEvent(absl::string_view data, absl::Time now) {
  if (data == "[DONE]") {
    done_ = true;
    return absl::OkStatus();
  }
  const json event = json::parse(data, nullptr, /*allow_exceptions=*/false);
  if (!event.is_object() || event.contains("error")) {
    return absl::UnavailableError(absl::StrCat("the stream has an error: ", data.substr(0, 500)));
  }
  if (const auto usage = event.find("usage"); usage != event.end() && usage->is_object()) {
    const auto tokens = usage->find("completion_tokens");
    if (tokens != usage->end() && tokens->is_number_integer()) {
      answer_.generated_tokens = tokens->get<int>();
    }
  }
  const auto choices = event.find("choices");
  if (choices == event.end() || !choices->is_array() || choices->empty()) return absl::OkStatus();
  const json& choice = choices->front();
  const auto text = choice.is_object() ? choice.find("text") : choice.end();
  if (choice.is_object() && text != choice.end() && text->is_string() &&
      !text->get_ref<const std::string&>().empty()) {
    answer_.text_times.push_back(now);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ReplayAnswer>> ReplayOverHttp(const HttpTarget& target,
                                                         const std::vector<ReplayRequest>& requests,
                                                         absl::Duration patience) {
  DT_ASSIGN_OR_RETURN(const Address addresses, Resolve(target));
  std::vector<absl::StatusOr<ReplayAnswer>> answers(requests.size());
  std::vector<std::thread> threads;
  threads.reserve(requests.size());
  const absl::Time start = absl::Now();
  const absl::Time until = start + (requests.empty() ? patience : requests.back().at + patience);
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::string bytes = MakeRequest(target, requests[i]);
    while (absl::Now() < start + requests[i].at) {
      absl::SleepFor(start + requests[i].at - absl::Now());
    }
    threads.emplace_back([&addresses, &answers, bytes, until, i] {
      answers[i] = Ask(addresses.get(), bytes, until);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<ReplayAnswer> result;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i].ok()) {
      return Annotate(answers[i].status(), absl::StrCat("request ", i + 1, " of the trace"));
    }
    result.push_back(*std::move(answers[i]));
  }
  return result;
}

}  // namespace dovetail::tools
