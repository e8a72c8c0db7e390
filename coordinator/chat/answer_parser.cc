#include "coordinator/chat/answer_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace dovetail::coordinator {
namespace {

constexpr ChatDialect kNoTools = {};
constexpr absl::string_view kHarmonyMessage = "<|message|>";
constexpr absl::string_view kHarmonyEnds[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>"};
constexpr absl::string_view kHarmonyRecipient = "to=functions.";
constexpr absl::string_view kPythonTag = "<|python_tag|>";

// Bytes at the end of `text` that are the beginning of `mark`.
size_t BeginningOf(absl::string_view mark, absl::string_view text) {
  for (size_t n = std::min(text.size(), mark.empty() ? 0 : mark.size() - 1); n > 0; --n) {
    if (absl::EndsWith(text, mark.substr(0, n))) return n;
  }
  return 0;
}

bool MayBecome(absl::string_view text, absl::string_view mark) {
  return text.size() < mark.size() && absl::StartsWith(mark, text);
}

absl::string_view TrimNewline(absl::string_view value) {
  absl::ConsumePrefix(&value, "\n");
  absl::ConsumeSuffix(&value, "\n");
  return value;
}

}  // namespace

AnswerParser::AnswerParser(ParserOptions options)
    : options_(std::move(options)),
      dialect_(options_.dialect != nullptr ? *options_.dialect : kNoTools) {
  if (dialect_.style == CallStyle::kHarmony) {
    state_ = State::kHarmonyHead;
  } else if (options_.starts_in_thought) {
    state_ = State::kThought;
    trims_ = true;
  }
}

AnswerDelta AnswerParser::Push(absl::string_view text) {
  AnswerDelta out;
  buffer_.append(text.data(), text.size());
  while (Step(&out)) {
  }
  return out;
}

AnswerDelta AnswerParser::Finish() {
  AnswerDelta out;
  finishing_ = true;
  while (Step(&out)) {
  }
  switch (state_) {
    case State::kThought:
      absl::StrAppend(&out.reasoning, absl::StripTrailingAsciiWhitespace(buffer_));
      break;
    case State::kText:
      if (trims_) TrimFront();
      out.text += Take(buffer_.size());
      break;
    case State::kHead:
    case State::kWhole:
      // It never became a call.
      out.text += absl::StrCat(dialect_.call_begin, Take(buffer_.size()));
      break;
    default:
      break;  // what is left are beginnings of marks and spaces
  }
  return out;
}

bool AnswerParser::Step(AnswerDelta* out) {
  switch (state_) {
    case State::kStart:
      return StepStart();
    case State::kThought:
      return StepThought(out);
    case State::kText:
      return StepText(out);
    case State::kSection:
      return StepSection();
    case State::kName:
      return StepName(out);
    case State::kHead:
      return StepHead(out);
    case State::kWhole:
      return StepWhole(out);
    case State::kArguments:
      return StepArguments(out);
    case State::kXmlArguments:
      return StepXmlArguments(out);
    case State::kTail:
      return StepTail();
    case State::kHarmonyHead:
      return StepHarmonyHead(out);
    case State::kHarmonyBody:
      return StepHarmonyBody(out);
  }
  return false;
}

std::string AnswerParser::Take(size_t bytes) {
  std::string taken = buffer_.substr(0, bytes);
  buffer_.erase(0, bytes);
  return taken;
}

void AnswerParser::TrimFront() {
  const auto first = std::find_if_not(buffer_.begin(), buffer_.end(),
                                      [](char c) { return absl::ascii_isspace(c); });
  buffer_.erase(buffer_.begin(), first);
}

size_t AnswerParser::CertainBytes(std::initializer_list<absl::string_view> marks) const {
  size_t held = 0;
  for (absl::string_view mark : marks) held = std::max(held, BeginningOf(mark, buffer_));
  size_t bytes = buffer_.size() - held;
  while (bytes > 0 && absl::ascii_isspace(buffer_[bytes - 1])) --bytes;
  return bytes;
}

// Spaces before <think> or a bare call go with it; before text they are text.
bool AnswerParser::StepStart() {
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(buffer_);
  if (text.empty() && !finishing_) return false;
  if (options_.thinks) {
    if (absl::StartsWith(text, kThinkBegin)) {
      TrimFront();
      Take(kThinkBegin.size());
      state_ = State::kThought;
      trims_ = true;
      return true;
    }
    if (MayBecome(text, kThinkBegin) && !finishing_) return false;
  }
  const bool bare = dialect_.style == CallStyle::kNamedJson && dialect_.call_begin.empty() &&
                    dialect_.section_begin.empty();
  if (bare && MayBecome(text, kPythonTag) && !finishing_) return false;
  state_ = State::kText;
  if (bare && (absl::StartsWith(text, "{") || absl::StartsWith(text, kPythonTag))) {
    TrimFront();
    if (absl::StartsWith(buffer_, kPythonTag)) Take(kPythonTag.size());
    BeginCall();
  }
  return true;
}

bool AnswerParser::StepThought(AnswerDelta* out) {
  if (trims_) TrimFront();
  const size_t end = buffer_.find(kThinkEnd.data(), 0, kThinkEnd.size());
  if (end != std::string::npos) {
    absl::StrAppend(&out->reasoning,
                    absl::StripTrailingAsciiWhitespace(absl::string_view(buffer_).substr(0, end)));
    Take(end + kThinkEnd.size());
    state_ = State::kText;
    trims_ = true;
    return true;
  }
  const size_t bytes = CertainBytes({kThinkEnd});
  if (bytes > 0) trims_ = false;
  out->reasoning += Take(bytes);
  return false;
}

bool AnswerParser::StepText(AnswerDelta* out) {
  if (trims_) TrimFront();
  const absl::string_view mark =
      dialect_.section_begin.empty() ? dialect_.call_begin : dialect_.section_begin;
  if (mark.empty()) {
    if (!buffer_.empty()) trims_ = false;
    out->text += Take(buffer_.size());
    return false;
  }
  const size_t begin = buffer_.find(mark.data(), 0, mark.size());
  if (begin != std::string::npos) {
    absl::StrAppend(&out->text, absl::StripTrailingAsciiWhitespace(
                                    absl::string_view(buffer_).substr(0, begin)));
    Take(begin + mark.size());
    if (dialect_.section_begin.empty()) {
      BeginCall();
    } else {
      state_ = State::kSection;
    }
    return true;
  }
  const size_t bytes = CertainBytes({mark});
  if (bytes > 0) trims_ = false;
  out->text += Take(bytes);
  return false;
}

bool AnswerParser::StepSection() {
  TrimFront();
  if (buffer_.empty()) return false;
  const absl::string_view begin = dialect_.call_begin.empty() ? "{" : dialect_.call_begin;
  if (absl::StartsWith(buffer_, begin)) {
    Take(dialect_.call_begin.size());  // a bare object keeps its brace
    BeginCall();
    return true;
  }
  const absl::string_view end = dialect_.section_end;
  if (!end.empty() && absl::StartsWith(buffer_, end)) {
    Take(end.size());
    state_ = State::kText;
    trims_ = true;
    return true;
  }
  if (MayBecome(buffer_, begin) || MayBecome(buffer_, end)) return false;
  Take(1);  // brackets and commas of a list, and what does not belong here
  return true;
}

void AnswerParser::BeginCall() {
  scanner_ = ObjectScanner();
  state_ = dialect_.style == CallStyle::kNamedJson ? State::kHead : State::kName;
}

void AnswerParser::StartCall(const std::string& name, AnswerDelta* out) {
  ToolCallDelta call;
  call.index = num_calls_++;
  call.id = options_.new_id ? options_.new_id() : absl::StrCat("call_", call.index);
  call.name = name;
  // Kimi numbers its calls ("f:0"), and wants to see the whole as the id of the result.
  if (const size_t colon = name.rfind(':');
      dialect_.name == "kimi_k2" && colon != std::string::npos) {
    call.id = absl::StrCat(dialect_.name_prefix, name);
    call.name = name.substr(0, colon);
  }
  name_ = call.name;
  num_arguments_ = 0;
  out->tool_calls.push_back(std::move(call));
}

void AnswerParser::AddArguments(absl::string_view text, AnswerDelta* out) const {
  if (text.empty()) return;
  if (out->tool_calls.empty() || out->tool_calls.back().index != num_calls_ - 1) {
    out->tool_calls.push_back({.index = num_calls_ - 1});
  }
  out->tool_calls.back().arguments.append(text.data(), text.size());
}

void AnswerParser::EndCall() {
  state_ = dialect_.section_begin.empty() ? State::kText : State::kSection;
  trims_ = true;
  const bool bare = dialect_.call_begin.empty() && dialect_.section_begin.empty();
  if (bare) state_ = State::kStart;  // another object may follow
}

bool AnswerParser::StepName(AnswerDelta* out) {
  size_t end = buffer_.find(dialect_.name_end.data(), 0, dialect_.name_end.size());
  size_t mark = dialect_.name_end.size();
  if (!dialect_.name_close.empty()) {
    const size_t close = buffer_.find(dialect_.name_close.data(), 0, dialect_.name_close.size());
    if (close < end) {
      end = close;
      mark = 0;
    } else if (end != std::string::npos && end == 0) {
      Take(mark);  // an empty line before the name
      return true;
    }
  }
  if (end == std::string::npos) return false;
  absl::string_view name = absl::StripAsciiWhitespace(absl::string_view(buffer_).substr(0, end));
  absl::ConsumePrefix(&name, dialect_.name_prefix);
  StartCall(std::string(name), out);
  Take(end + mark);
  state_ = dialect_.style == CallStyle::kXml ? State::kXmlArguments : State::kArguments;
  return true;
}

bool AnswerParser::StepHead(AnswerDelta* out) {
  const CallHead head = ReadCallHead(buffer_);
  if (head.state == HeadState::kIncomplete) return false;
  // By itself only an object that names a tool of the request is a call.
  const bool bare = dialect_.call_begin.empty() && dialect_.section_begin.empty();
  if (bare && (head.state == HeadState::kOther || !options_.string_arguments.contains(head.name))) {
    state_ = State::kText;
    trims_ = false;
    return true;
  }
  if (head.state == HeadState::kOther) {
    state_ = State::kWhole;
    return true;
  }
  StartCall(head.name, out);
  Take(head.bytes);
  state_ = State::kArguments;
  return true;
}

bool AnswerParser::StepWhole(AnswerDelta* out) {
  ObjectScanner scanner;
  const bool object = absl::StartsWith(absl::StripLeadingAsciiWhitespace(buffer_), "{");
  const size_t bytes = object ? scanner.Scan(buffer_) : 0;
  std::string name, arguments;
  if (object && !scanner.done()) return false;
  if (object && ReadWholeCall(absl::string_view(buffer_).substr(0, bytes), &name, &arguments)) {
    StartCall(name, out);
    AddArguments(arguments, out);
    // The tail of a bare call is the brace of its object, which was taken with it.
    Take(dialect_.call_end.empty() ? bytes - 1 : bytes);
    state_ = State::kTail;
    return true;
  }
  out->text += absl::StrCat(dialect_.call_begin, Take(bytes));
  state_ = State::kText;
  trims_ = false;
  return true;
}

bool AnswerParser::StepArguments(AnswerDelta* out) {
  if (num_arguments_ == 0) {
    TrimFront();
    if (buffer_.empty()) return false;
    if (buffer_[0] != '{') {
      // There are none.
      AddArguments("{}", out);
      state_ = State::kTail;
      return true;
    }
    num_arguments_ = 1;  // it has begun
  }
  const size_t bytes = scanner_.Scan(buffer_);
  AddArguments(Take(bytes), out);
  if (!scanner_.done()) return false;
  state_ = State::kTail;
  return true;
}

bool AnswerParser::StepXmlArguments(AnswerDelta* out) {
  TrimFront();
  if (absl::StartsWith(buffer_, dialect_.call_end)) {
    AddArguments(num_arguments_ == 0 ? "{}" : "}", out);
    state_ = State::kTail;
    return true;
  }
  if (buffer_.empty() || MayBecome(buffer_, dialect_.call_end) ||
      MayBecome(buffer_, dialect_.key_begin)) {
    return false;
  }
  if (!absl::StartsWith(buffer_, dialect_.key_begin)) {
    Take(1);  // what does not belong here
    return true;
  }
  const absl::string_view text = buffer_;
  const size_t key = dialect_.key_begin.size();
  const size_t key_end = text.find(dialect_.key_end, key);
  if (key_end == absl::string_view::npos) return false;
  size_t value = key_end + dialect_.key_end.size();
  if (!dialect_.value_begin.empty()) {
    value = text.find(dialect_.value_begin, value);
    if (value == absl::string_view::npos) return false;
    value += dialect_.value_begin.size();
  }
  const size_t value_end = text.find(dialect_.value_end, value);
  if (value_end == absl::string_view::npos) return false;
  const std::string name(text.substr(key, key_end - key));
  bool is_string = false;
  if (const auto tool = options_.string_arguments.find(name_);
      tool != options_.string_arguments.end()) {
    const auto argument = tool->second.find(name);
    is_string = argument != tool->second.end() && argument->second;
  }
  AddArguments(
      absl::StrCat(num_arguments_ == 0 ? "{" : ", ", QuotedJson(name), ": ",
                   ArgumentJson(TrimNewline(text.substr(value, value_end - value)), is_string)),
      out);
  ++num_arguments_;
  Take(value_end + dialect_.value_end.size());
  return true;
}

bool AnswerParser::StepTail() {
  const absl::string_view end = dialect_.call_end.empty() ? "}" : dialect_.call_end;
  const size_t at = buffer_.find(end.data(), 0, end.size());
  if (at == std::string::npos) {
    Take(buffer_.size() - BeginningOf(end, buffer_));
    return false;
  }
  Take(at + end.size());
  EndCall();
  return true;
}

// "<|channel|>commentary to=functions.f <|constrain|>json<|message|>"
bool AnswerParser::StepHarmonyHead(AnswerDelta* out) {
  const size_t end = buffer_.find(kHarmonyMessage.data(), 0, kHarmonyMessage.size());
  if (end == std::string::npos) return false;
  const absl::string_view head = absl::string_view(buffer_).substr(0, end);
  const size_t recipient = head.find(kHarmonyRecipient);
  harmony_call_ = recipient != absl::string_view::npos;
  harmony_thought_ = !harmony_call_ && absl::StrContains(head, "analysis");
  if (harmony_call_) {
    const absl::string_view name = head.substr(recipient + kHarmonyRecipient.size());
    StartCall(std::string(name.substr(0, name.find_first_of(" <\n"))), out);
  }
  Take(end + kHarmonyMessage.size());
  state_ = State::kHarmonyBody;
  return true;
}

bool AnswerParser::StepHarmonyBody(AnswerDelta* out) {
  size_t end = std::string::npos;
  size_t held = 0;
  absl::string_view mark;
  for (absl::string_view candidate : kHarmonyEnds) {
    const size_t at = buffer_.find(candidate.data(), 0, candidate.size());
    if (at < end) {
      end = at;
      mark = candidate;
    }
    held = std::max(held, BeginningOf(candidate, buffer_));
  }
  const bool ended = end != std::string::npos;
  const std::string body = Take(ended ? end : buffer_.size() - (finishing_ ? 0 : held));
  if (harmony_call_) {
    AddArguments(body, out);
  } else {
    (harmony_thought_ ? out->reasoning : out->text) += body;
  }
  if (!ended) return false;
  Take(mark.size());
  state_ = State::kHarmonyHead;
  return true;
}

}  // namespace dovetail::coordinator
