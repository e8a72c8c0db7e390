// Byte-level BPE ("gpt2"): pre-tokenizer, byte alphabet, ranked merges.
#ifndef DOVETAIL_MODEL_TOKENIZER_BPE_TOKENIZER_H_
#define DOVETAIL_MODEL_TOKENIZER_BPE_TOKENIZER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/vocab_data.h"

namespace dovetail::model {

// `vocab` has passed CheckVocabData(). InvalidArgument: an unknown pre-tokenizer (with the list of
// known ones), a malformed merge, a missing bos_token_id.
absl::StatusOr<std::unique_ptr<Tokenizer>> CreateBpeTokenizer(VocabData vocab);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_BPE_TOKENIZER_H_
