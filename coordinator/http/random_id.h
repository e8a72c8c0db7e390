// RandomId: 24 characters that no other request has, for ids in responses and headers. Thread-safe.
#ifndef DOVETAIL_COORDINATOR_HTTP_RANDOM_ID_H_
#define DOVETAIL_COORDINATOR_HTTP_RANDOM_ID_H_

#include <string>

namespace dovetail::coordinator {

std::string RandomId();

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_RANDOM_ID_H_
