// WorkCall: a request that is answered in one piece after work that would hold up the I/O thread,
// such as tokenising. If its client leaves meanwhile, the answer is dropped.
#ifndef DOVETAIL_COORDINATOR_HTTP_WORK_CALL_H_
#define DOVETAIL_COORDINATOR_HTTP_WORK_CALL_H_

#include <functional>
#include <memory>

#include "coordinator/http/http_message.h"

namespace dovetail::coordinator {

// Runs `work` on the work thread and sends what it returns. `work` may keep the request's body.
std::shared_ptr<HttpCall> AnswerFromWorkThread(const std::shared_ptr<HttpExecutor>& executor,
                                               std::shared_ptr<HttpReply> reply,
                                               std::function<HttpResponse()> work);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_WORK_CALL_H_
