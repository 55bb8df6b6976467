#include "robo_rlft/files.hpp"

#include <cstring>
#include <fstream>
#include <sstream>

#include "robo_rlft/error.hpp"
#include "robo_rlft/json.hpp"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the files are little endian and are read as they are");

namespace robo_rlft {
namespace {

// A piece of the data; raises Error where it would reach beyond the end. Written so that no sum can overflow.
std::string_view piece(std::string_view data, std::uint64_t start, std::uint64_t size, const char* what) {
  if (start > data.size() || size > data.size() - start) throw Error(std::string(what) + " reaches beyond the end of the file");
  return data.substr(start, size);
}

template <typename T>
T number(std::string_view data, std::uint64_t start, const char* what) {
  T value;
  std::memcpy(&value, piece(data, start, sizeof(T), what).data(), sizeof(T));
  return value;
}

// Entries of a shape; raises Error where an extent is negative or the product could overflow.
std::uint64_t entries(const std::vector<std::int64_t>& shape) {
  std::uint64_t count = 1;
  for (const std::int64_t extent : shape) {
    if (extent < 0 || (extent > 0 && count > (std::uint64_t{1} << 40) / static_cast<std::uint64_t>(extent))) {
      throw Error("an array has an impossible shape");
    }
    count *= static_cast<std::uint64_t>(extent);
  }
  return count;
}

Tensor tensor(std::string_view bytes, std::vector<std::int64_t> shape) {
  const std::uint64_t count = entries(shape);
  if (bytes.size() != count * sizeof(float)) throw Error("an array's size does not fit its shape");
  Tensor out{std::move(shape), std::vector<float>(count)};
  if (count > 0) std::memcpy(out.data.data(), bytes.data(), bytes.size());
  return out;
}

std::vector<std::int64_t> whole_numbers(const json::Value& list, const char* what) {
  std::vector<std::int64_t> out;
  if (list.type != json::Value::Type::Array) throw Error(std::string(what) + " must be a list");
  for (const json::Value& v : list.array) {
    const double n = v.as_number(what);
    if (!(n >= 0) || n > 9e15 || n != static_cast<double>(static_cast<std::int64_t>(n))) {
      throw Error(std::string(what) + " must hold whole numbers");
    }
    out.push_back(static_cast<std::int64_t>(n));
  }
  return out;
}

// What stands behind `'key':` in an npy header, a Python literal that numpy alone writes.
std::string_view npy_field(std::string_view header, std::string_view key) {
  const std::size_t at = header.find(key);
  if (at == std::string_view::npos) throw Error("an npy header lacks " + std::string(key));
  return header.substr(at + key.size());
}

std::vector<std::int64_t> npy_shape(std::string_view header) {
  std::string_view text = npy_field(header, "'shape': (");
  std::vector<std::int64_t> shape;
  std::int64_t extent = -1;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      extent = (extent < 0 ? 0 : extent) * 10 + (c - '0');
      if (extent > (std::int64_t{1} << 40)) break;
    } else if (c == ',' || c == ')') {
      if (extent >= 0) shape.push_back(extent);
      extent = -1;
      if (c == ')') return shape;
    } else if (c != ' ') {
      break;
    }
  }
  throw Error("an npy header has a malformed shape");
}

Tensor npy(std::string_view data) {
  if (piece(data, 0, 6, "an npy magic") != "\x93NUMPY") throw Error("an entry of the npz is no npy array");
  const bool first = data.size() > 6 && data[6] == 1;
  const std::uint64_t length = first ? number<std::uint16_t>(data, 8, "an npy header") : number<std::uint32_t>(data, 8, "an npy header");
  const std::uint64_t start = first ? 10 : 12;
  const std::string_view header = piece(data, start, length, "an npy header");
  if (npy_field(header, "'descr': ").substr(0, 5) != "'<f4'") throw Error("an array of the npz is not little-endian float32");
  if (npy_field(header, "'fortran_order': ").substr(0, 5) != "False") throw Error("an array of the npz is in Fortran order");
  return tensor(data.substr(start + length), npy_shape(header));
}

// Where the central directory is: the last "PK\5\6" that its own comment length brings to the end of the file.
std::uint64_t end_record(std::string_view data) {
  if (data.size() < 22) throw Error("too short for a zip file");
  const std::uint64_t lowest = data.size() > 22 + 65535 ? data.size() - 22 - 65535 : 0;
  for (std::uint64_t at = data.size() - 22 + 1; at-- > lowest;) {
    if (data.substr(at, 4) == std::string_view("PK\5\6", 4) && at + 22 + number<std::uint16_t>(data, at + 20, "zip") == data.size()) return at;
  }
  throw Error("no zip file");
}

}  // namespace

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) throw Error("cannot read " + path + ": copy or export the bundle again");
  return text.str();
}

Tensors read_safetensors(std::string_view data) {
  constexpr std::uint64_t kMaxHeader = 100'000'000;
  const auto length = number<std::uint64_t>(data, 0, "the header");
  if (length > kMaxHeader) throw Error("the header is larger than any real one");
  const json::Value header = json::parse(piece(data, 8, length, "the header"));
  if (header.type != json::Value::Type::Object) throw Error("the header is no JSON object");
  const std::string_view body = data.substr(8 + length);
  Tensors out;
  for (const auto& [name, entry] : header.object) {
    if (name == "__metadata__") continue;
    if (entry.at("dtype").as_string("dtype") != "F32") throw Error("tensor '" + name + "' is not F32");
    const auto range = whole_numbers(entry.at("data_offsets"), "data_offsets");
    if (range.size() != 2 || range[1] < range[0]) throw Error("tensor '" + name + "' has malformed offsets");
    const auto start = static_cast<std::uint64_t>(range[0]), end = static_cast<std::uint64_t>(range[1]);
    out.emplace(name, tensor(piece(body, start, end - start, "a tensor"), whole_numbers(entry.at("shape"), "shape")));
  }
  return out;
}

Tensors read_npz(std::string_view data) {
  const std::uint64_t end = end_record(data);
  const auto count = number<std::uint16_t>(data, end + 10, "zip");
  std::uint64_t at = number<std::uint32_t>(data, end + 16, "zip");
  Tensors out;
  for (int i = 0; i < count; ++i) {
    if (piece(data, at, 4, "the zip directory") != std::string_view("PK\1\2", 4)) throw Error("the zip directory is damaged");
    const auto method = number<std::uint16_t>(data, at + 10, "zip");
    const auto stored = number<std::uint32_t>(data, at + 20, "zip"), size = number<std::uint32_t>(data, at + 24, "zip");
    const auto name_length = number<std::uint16_t>(data, at + 28, "zip"), extra = number<std::uint16_t>(data, at + 30, "zip");
    const auto comment = number<std::uint16_t>(data, at + 32, "zip");
    const std::uint64_t local = number<std::uint32_t>(data, at + 42, "zip");
    std::string name(piece(data, at + 46, name_length, "a zip name"));
    if (method != 0 || stored != size) throw Error("'" + name + "' is compressed: write it with numpy.savez");
    // Lengths of name and extra field of the local header differ from those in the directory.
    const std::uint64_t skip = 30u + number<std::uint16_t>(data, local + 26u, "zip") + number<std::uint16_t>(data, local + 28u, "zip");
    const std::string_view bytes = piece(data, local + skip, size, "a zip entry");
    if (name.size() > 4 && name.compare(name.size() - 4, 4, ".npy") == 0) name.resize(name.size() - 4);
    // Images and other types are none of this runtime's business; the arrays it needs are asked for by name.
    if (bytes.find("'<f4'") != std::string_view::npos) out.emplace(name, npy(bytes));
    at += 46u + name_length + extra + comment;
  }
  return out;
}

}  // namespace robo_rlft
