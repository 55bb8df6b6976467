#include "robo_rlft/json.hpp"

#include <charconv>
#include <cmath>
#include <cstdint>

#include "robo_rlft/error.hpp"

namespace robo_rlft::json {
namespace {

constexpr int kMaxDepth = 64;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Value document() {
    Value value = any(0);
    space();
    if (at_ != text_.size()) fail("text after the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw Error("not JSON: " + std::string(what) + " at byte " + std::to_string(at_));
  }

  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }

  char take() {
    if (!more()) fail("it ends early");
    return text_[at_++];
  }

  void space() {
    while (more() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
  }

  bool accept(char c) {
    space();
    if (peek() != c || !more()) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) fail("an unexpected character");
  }

  Value any(int depth) {
    if (depth > kMaxDepth) fail("nested too deeply");
    space();
    switch (peek()) {
      case '{': return object(depth);
      case '[': return array(depth);
      case '"': return text();
      case 't': return literal("true", Value::Type::Bool, true);
      case 'f': return literal("false", Value::Type::Bool, false);
      case 'n': return literal("null", Value::Type::Null, false);
      default: return number();
    }
  }

  Value literal(std::string_view word, Value::Type type, bool boolean) {
    if (text_.substr(at_, word.size()) != word) fail("an unknown word");
    at_ += word.size();
    Value value;
    value.type = type;
    value.boolean = boolean;
    return value;
  }

  Value object(int depth) {
    Value value;
    value.type = Value::Type::Object;
    expect('{');
    if (accept('}')) return value;
    do {
      space();
      if (peek() != '"') fail("a key that is no string");
      std::string key = characters();
      for (const auto& member : value.object) {
        if (member.first == key) fail("a key given twice");
      }
      expect(':');
      value.object.emplace_back(std::move(key), any(depth + 1));
    } while (accept(','));
    expect('}');
    return value;
  }

  Value array(int depth) {
    Value value;
    value.type = Value::Type::Array;
    expect('[');
    if (accept(']')) return value;
    do {
      value.array.push_back(any(depth + 1));
    } while (accept(','));
    expect(']');
    return value;
  }

  Value text() {
    Value value;
    value.type = Value::Type::String;
    value.string = characters();
    return value;
  }

  static bool digit(char c) { return c >= '0' && c <= '9'; }

  void digits() {
    if (!digit(peek())) fail("a malformed number");
    while (digit(peek())) ++at_;
  }

  // The grammar is checked here; from_chars alone would take "01", ".5" or "inf".
  Value number() {
    const std::size_t start = at_;
    if (peek() == '-') ++at_;
    if (peek() == '0') {
      ++at_;
    } else {
      digits();
    }
    if (peek() == '.') {
      ++at_;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    Value value;
    value.type = Value::Type::Number;
    const auto read = std::from_chars(text_.data() + start, text_.data() + at_, value.number);
    if (read.ec != std::errc() || !std::isfinite(value.number)) fail("a number out of range");
    return value;
  }

  std::string characters() {
    expect('"');
    std::string out;
    while (true) {
      const char c = take();
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      if (c == '\\') {
        escape(out);
      } else if (static_cast<unsigned char>(c) < 0x80) {
        out += c;
      } else {
        multibyte(out, static_cast<unsigned char>(c));
      }
    }
  }

  void escape(std::string& out) {
    const char c = take();
    switch (c) {
      case '"': case '\\': case '/': out += c; return;
      case 'b': out += '\b'; return;
      case 'f': out += '\f'; return;
      case 'n': out += '\n'; return;
      case 'r': out += '\r'; return;
      case 't': out += '\t'; return;
      case 'u': append(out, code_point()); return;
      default: fail("an unknown escape");
    }
  }

  std::uint32_t hex4() {
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = take();
      value <<= 4;
      if (digit(c)) value += static_cast<std::uint32_t>(c - '0');
      else if (c >= 'a' && c <= 'f') value += static_cast<std::uint32_t>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F') value += static_cast<std::uint32_t>(c - 'A' + 10);
      else fail("a malformed \\u escape");
    }
    return value;
  }

  std::uint32_t code_point() {
    const std::uint32_t first = hex4();
    if (first >= 0xDC00 && first < 0xE000) fail("half a surrogate pair");
    if (first < 0xD800 || first >= 0xE000) return first;
    if (take() != '\\' || take() != 'u') fail("half a surrogate pair");
    const std::uint32_t second = hex4();
    if (second < 0xDC00 || second >= 0xE000) fail("half a surrogate pair");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  static void append(std::string& out, std::uint32_t c) {
    const auto put = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
    if (c < 0x80) {
      put(c);
    } else if (c < 0x800) {
      put(0xC0 | (c >> 6));
      put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
      put(0xE0 | (c >> 12));
      put(0x80 | ((c >> 6) & 0x3F));
      put(0x80 | (c & 0x3F));
    } else {
      put(0xF0 | (c >> 18));
      put(0x80 | ((c >> 12) & 0x3F));
      put(0x80 | ((c >> 6) & 0x3F));
      put(0x80 | (c & 0x3F));
    }
  }

  // One UTF-8 sequence; overlong forms, surrogates and anything beyond U+10FFFF are refused.
  void multibyte(std::string& out, unsigned char lead) {
    const int extra = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (lead < 0xC2 || lead > 0xF4) fail("a byte that is not UTF-8");
    std::uint32_t c = lead & (0x3Fu >> extra);
    for (int i = 0; i < extra; ++i) {
      const auto next = static_cast<unsigned char>(take());
      if ((next & 0xC0) != 0x80) fail("a byte that is not UTF-8");
      c = (c << 6) | (next & 0x3Fu);
    }
    const std::uint32_t smallest = extra == 1 ? 0x80 : extra == 2 ? 0x800 : 0x10000;
    if (c < smallest || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) fail("a byte that is not UTF-8");
    append(out, c);
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

[[noreturn]] void wrong(std::string_view what, const char* expected) {
  throw Error(std::string(what) + " must be " + expected);
}

}  // namespace

const Value* Value::find(std::string_view key) const {
  if (type != Type::Object) return nullptr;
  for (const auto& member : object) {
    if (member.first == key) return member.second.is_null() ? nullptr : &member.second;
  }
  return nullptr;
}

const Value& Value::at(std::string_view key) const {
  const Value* found = find(key);
  if (found == nullptr) throw Error("'" + std::string(key) + "' is missing");
  return *found;
}

const std::string& Value::as_string(std::string_view what) const {
  if (type != Type::String) wrong(what, "text");
  return string;
}

double Value::as_number(std::string_view what) const {
  if (type != Type::Number) wrong(what, "a number");
  return number;
}

long long Value::as_integer(std::string_view what) const {
  const double n = as_number(what);
  if (n != std::floor(n) || std::fabs(n) > 1e9) wrong(what, "a whole number");
  return static_cast<long long>(n);
}

std::vector<double> Value::as_numbers(std::string_view what) const {
  if (type != Type::Array) wrong(what, "a list of numbers");
  std::vector<double> out;
  for (const Value& v : array) out.push_back(v.as_number(what));
  return out;
}

std::vector<std::string> Value::as_strings(std::string_view what) const {
  if (type != Type::Array) wrong(what, "a list of names");
  std::vector<std::string> out;
  for (const Value& v : array) out.push_back(v.as_string(what));
  return out;
}

Value parse(std::string_view text) { return Parser(text).document(); }

}  // namespace robo_rlft::json
