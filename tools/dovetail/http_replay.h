// HttpReplay: sends requests at given times to a server that speaks OpenAI's completions over HTTP,
// ours or another, and notes when each answer's text came.
//
// Each request has a connection and a thread of its own, so that a slow answer delays no other.
#ifndef DOVETAIL_TOOLS_DOVETAIL_HTTP_REPLAY_H_
#define DOVETAIL_TOOLS_DOVETAIL_HTTP_REPLAY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace dovetail::tools {

struct HttpTarget {
  std::string host;
  std::string port;
  std::string path;  // of the completions
};

// "http://127.0.0.1:8080" or with a path in front of /v1/completions. InvalidArgument: anything
// else, https too.
absl::StatusOr<HttpTarget> ParseHttpUrl(absl::string_view url);

struct ReplayRequest {
  std::vector<int32_t> prompt;
  int max_tokens = 0;
  absl::Duration at;  // after the start
};

struct ReplayAnswer {
  absl::Time submitted;
  std::vector<absl::Time> text_times;  // of each event that brought text; ascending
  int generated_tokens = 0;            // as the server counts them; of a part, the events with text
  bool whole = true;                   // false: patience ended first, and `text_times` may be empty
};

// The text events of one answer, taken from its bytes as they come: HTTP's head, a body in chunks
// or to the connection's end, and server-sent events in it.
class AnswerReader {
 public:
  // `now` is when these bytes came. Unavailable: the server refused, or its stream has an error.
  absl::Status Read(absl::string_view bytes, absl::Time now);
  bool done() const { return done_; }  // [DONE] came
  const ReplayAnswer& answer() const { return answer_; }

 private:
  absl::Status TakeHead();
  absl::Status TakeChunks();
  absl::Status TakeEvents(absl::Time now);
  absl::Status TakeEvent(absl::string_view data, absl::Time now);

  std::string raw_;   // not yet understood
  std::string body_;  // without chunk sizes, from the last whole event on
  bool has_head_ = false;
  bool chunked_ = false;
  bool refused_ = false;   // status is not 200: the body says why
  size_t chunk_left_ = 0;  // of the chunk that is being read, its line end included
  bool ended_ = false;     // the last chunk came
  bool done_ = false;
  ReplayAnswer answer_;
};

// Greedy, end of sequence ignored. Answers that are not whole `patience` after the last request is
// due are cut where they are. The first failure is returned, after all have ended.
absl::StatusOr<std::vector<ReplayAnswer>> ReplayOverHttp(const HttpTarget& target,
                                                         const std::vector<ReplayRequest>& requests,
                                                         absl::Duration patience);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_HTTP_REPLAY_H_
