// HeadReader: what request_head.h checks, out of Beast's message. Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_HEAD_READER_H_
#define DOVETAIL_COORDINATOR_HTTP_HEAD_READER_H_

#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>

#include "absl/strings/string_view.h"
#include "coordinator/http/request_head.h"

namespace dovetail::coordinator {

inline absl::string_view View(boost::string_view text) { return {text.data(), text.size()}; }

// Views into `message`.
RequestHead ReadHead(const boost::beast::http::request_header<>& message);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_HEAD_READER_H_
