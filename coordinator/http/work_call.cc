#include "coordinator/http/work_call.h"

#include <utility>

#include "coordinator/http/api_error.h"

namespace dovetail::coordinator {
namespace {

class WorkCall : public HttpCall {
 public:
  explicit WorkCall(std::shared_ptr<HttpReply> reply) : reply_(std::move(reply)) {}

  void Answer(HttpResponse response) {
    if (const std::shared_ptr<HttpReply> reply = std::move(reply_)) {
      reply->Send(std::move(response));
    }
  }

  void OnSilence() override {}
  void OnGone() override { reply_.reset(); }
  void OnShutdown() override {
    Answer(
        ErrorResponse(ErrorFromStatus(absl::UnavailableError("the server is shutting down"), 0)));
  }

 private:
  std::shared_ptr<HttpReply> reply_;  // null once answered
};

}  // namespace

std::shared_ptr<HttpCall> AnswerFromWorkThread(const std::shared_ptr<HttpExecutor>& executor,
                                               std::shared_ptr<HttpReply> reply,
                                               std::function<HttpResponse()> work) {
  auto call = std::make_shared<WorkCall>(std::move(reply));
  executor->OnWorkThread([executor, call, work = std::move(work)] {
    auto response = std::make_shared<HttpResponse>(work());
    executor->OnIoThread([call, response] { call->Answer(std::move(*response)); });
  });
  return call;
}

}  // namespace dovetail::coordinator
