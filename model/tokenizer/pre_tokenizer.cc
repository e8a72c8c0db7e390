#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer/pre_tokenizer.h"

#include <pcre2.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"

namespace dovetail::model {
namespace {

// Enough for a single word of many megabytes, and an end to anything that backtracks without one.
constexpr uint32_t kMatchLimit = 200'000'000;
constexpr size_t kJitStackBytes = 1 << 20;

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct MatchContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct JitStackDeleter {
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

struct Pattern {
  std::unique_ptr<pcre2_code, CodeDeleter> code;
  bool group_digits = false;  // matches are then cut into threes
};

std::string Pcre2Message(int code) {
  unsigned char text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

absl::StatusOr<Pattern> Compile(absl::string_view source) {
  Pattern pattern;
  pattern.group_digits = source == kGroupDigitsByThree;
  // PCRE2's own \s has two characters more than Unicode's White_Space, which the tokenizers use.
  const std::string text =
      pattern.group_digits
          ? std::string("\\p{Nd}+")
          : absl::StrReplaceAll(source, {{"\\s", "\\p{wspace}"}, {"\\S", "\\P{wspace}"}});
  int error = 0;
  PCRE2_SIZE offset = 0;
  // The text is checked before it comes here, so PCRE2 need not check it again for every match.
  pattern.code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset,
                                   nullptr));
  if (pattern.code == nullptr) {
    return absl::InternalError(absl::StrCat("pre-tokenizer pattern '", source, "', offset ", offset,
                                            ": ", Pcre2Message(error)));
  }
  // Without JIT (a hardened kernel may refuse executable pages) the interpreter does the same work.
  pcre2_jit_compile(pattern.code.get(), PCRE2_JIT_COMPLETE);
  return pattern;
}

// Appends the end of every piece of [begin, end), a run of `digits` digits, from the right in
// threes.
void GroupDigits(absl::string_view text, size_t begin, size_t end, std::vector<size_t>* ends) {
  size_t digits = 0;
  for (size_t i = begin; i < end; ++i) digits += (text[i] & 0xC0) != 0x80;
  size_t left_in_group = digits % 3 == 0 ? 3 : digits % 3;
  for (size_t i = begin; i < end; ++i) {
    if ((text[i] & 0xC0) == 0x80) continue;
    if (left_in_group == 0) {
      ends->push_back(i);
      left_in_group = 3;
    }
    --left_in_group;
  }
  ends->push_back(end);
}

// What one Split() call needs of PCRE2 besides the shared patterns.
struct Matcher {
  std::unique_ptr<pcre2_match_data, MatchDataDeleter> data;
  std::unique_ptr<pcre2_match_context, MatchContextDeleter> context;
  std::unique_ptr<pcre2_jit_stack, JitStackDeleter> stack;

  Matcher()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr)) {
    pcre2_set_match_limit(context.get(), kMatchLimit);
    if (stack != nullptr) pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

// Cuts the piece text[begin, end) by one pattern. Look-behind and look-ahead see the piece alone.
absl::Status SplitPiece(const Pattern& pattern, absl::string_view text, size_t begin, size_t end,
                        Matcher* matcher, std::vector<size_t>* ends) {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data() + begin);
  const size_t size = end - begin;
  size_t covered = 0;
  size_t at = 0;
  while (at < size) {
    const int found = pcre2_match(pattern.code.get(), subject, size, at, PCRE2_NO_UTF_CHECK,
                                  matcher->data.get(), matcher->context.get());
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      return absl::ResourceExhaustedError(absl::StrCat("splitting the text at byte ", begin + at,
                                                       " into words: ", Pcre2Message(found)));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(matcher->data.get());
    if (range[1] <= range[0]) {  // an empty match: step over one character
      ++at;
      while (at < size && (subject[at] & 0xC0) == 0x80) ++at;
      continue;
    }
    if (range[0] > covered) ends->push_back(begin + range[0]);
    if (pattern.group_digits) {
      GroupDigits(text, begin + range[0], begin + range[1], ends);
    } else {
      ends->push_back(begin + range[1]);
    }
    covered = at = range[1];
  }
  if (covered < size) ends->push_back(end);
  return absl::OkStatus();
}

}  // namespace

struct PreTokenizer::Impl {
  std::vector<Pattern> patterns;
};

PreTokenizer::PreTokenizer() : impl_(std::make_unique<Impl>()) {}
PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(const PreTokenizerSpec& spec) {
  std::unique_ptr<PreTokenizer> result(new PreTokenizer);
  for (absl::string_view source : spec.patterns) {
    DT_ASSIGN_OR_RETURN(Pattern pattern, Compile(source));
    result->impl_->patterns.push_back(std::move(pattern));
  }
  return result;
}

absl::Status PreTokenizer::Split(absl::string_view text, std::vector<size_t>* ends) const {
  ends->clear();
  if (text.empty()) return absl::OkStatus();
  Matcher matcher;
  if (matcher.data == nullptr || matcher.context == nullptr) {
    return absl::ResourceExhaustedError("out of memory splitting the text into words");
  }
  ends->push_back(text.size());
  std::vector<size_t> next;
  for (const Pattern& pattern : impl_->patterns) {
    next.clear();
    size_t begin = 0;
    for (size_t end : *ends) {
      DT_RETURN_IF_ERROR(SplitPiece(pattern, text, begin, end, &matcher, &next));
      begin = end;
    }
    ends->swap(next);
  }
  return absl::OkStatus();
}

}  // namespace dovetail::model
