// Unicode's canonical composition (NFC): "e" and a combining acute become "é". Pure functions of
// valid UTF-8, in linearithmic time whatever the text.
#ifndef DOVETAIL_MODEL_TOKENIZER_UNICODE_NFC_H_
#define DOVETAIL_MODEL_TOKENIZER_UNICODE_NFC_H_

#include <string>

#include "absl/strings/string_view.h"

namespace dovetail::model {

// Whether there may be something to compose: no character below U+0300 ever is.
bool MayNeedNfc(absl::string_view text);

std::string ComposeNfc(absl::string_view text);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_UNICODE_NFC_H_
