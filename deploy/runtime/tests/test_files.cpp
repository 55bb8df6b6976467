// Readers: published vectors, round trips, and every cut and flipped byte is refused or read, never a crash (run under ASan).
#include <unistd.h>

#include <random>

#include "check.hpp"
#include "robo_rlft/bundle.hpp"
#include "robo_rlft/json.hpp"
#include "synthetic.hpp"

using namespace robo_rlft;

static void sha256_is_that_of_fips_180() {
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void json_reads_what_it_should() {
  const json::Value v = json::parse(R"( {"a": [1, -2.5e3, true, null], "b": {"c": "\u00e9\ud83d\ude00\n"}, "d": 0.1} )");
  CHECK(v.at("a").array[1].number == -2500.0);
  CHECK(v.at("b").at("c").string == "\xc3\xa9\xf0\x9f\x98\x80\n");
  CHECK(v.at("d").number == 0.1);
  CHECK(v.find("e") == nullptr);
  CHECK_REFUSED(v.at("e"), "'e' is missing");
  CHECK_REFUSED(v.at("d").as_string("d"), "d must be text");
}

static void json_refuses_the_rest() {
  for (const char* text : {"", "{", "[1,]", "{\"a\":1,}", "{\"a\":1,\"a\":2}", "01", "1.", ".5", "+1", "NaN", "Infinity", "1e999", "\"\\x\"", "\"\\ud800\"", "\"\xff\"",
                           "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\n\"", "{} {}", "tru", "{a:1}", "[1 2]"}) {
    CHECK_REFUSED(json::parse(text), "not JSON");
  }
  CHECK_REFUSED(json::parse(std::string(1000, '[')), "nested too deeply");
}

static Tensors some() { return {{"a", {{2, 3}, {1, 2, 3, 4, 5, 6}}}, {"b", {{1}, {-1}}}, {"none", {{0, 4}, {}}}}; }

template <typename Read>
static void survives_damage(const std::string& good, Read read) {
  std::mt19937 generator(5);
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    try {
      read(std::string_view(good).substr(0, cut));
    } catch (const Error&) {
    }
  }
  for (int i = 0; i < 20000; ++i) {
    std::string bad = good;
    for (unsigned k = 0; k <= generator() % 3; ++k) bad[generator() % bad.size()] = static_cast<char>(generator());
    try {
      read(bad);
    } catch (const Error&) {
    }
  }
}

static void arrays_survive_a_round_trip_and_damage() {
  for (const auto& [name, tensor] : some()) {
    CHECK(read_safetensors(synthetic::safetensors(some())).at(name).data == tensor.data);
    CHECK(read_npz(synthetic::npz(some())).at(name).shape == tensor.shape);
    CHECK(read_npz(synthetic::npz(some())).at(name).data == tensor.data);
  }
  survives_damage(synthetic::safetensors(some()), [](std::string_view d) { read_safetensors(d); });
  survives_damage(synthetic::npz(some()), [](std::string_view d) { read_npz(d); });
  CHECK_REFUSED(read_safetensors(std::string(8, '\xff') + "{}"), "larger than any");
}

static std::string replaced(std::string text, const std::string& from, const std::string& to) {
  CHECK(text.find(from) != std::string::npos);
  return text.replace(text.find(from), from.size(), to);
}

static void bundles_are_taken_or_refused_with_a_sentence() {
  const std::string folder = synthetic::bundle("files");
  CHECK(load_bundle(folder).action.limits[0].velocity == 2.0);
  const std::string good = read_file(folder + "/runtime.json");
  const std::map<std::pair<std::string, std::string>, std::string> wrong = {
      {{"\"version\": 1", "\"version\": 2"}, "'version' is another"},
      {{"robo_rlft.runtime", "other"}, "not one of our bundles"},
      {{"[\"joint_0\", \"joint_1\"]", "[\"joint_0\", \"joint_0\"]"}, "twice"},
      {{"[\"joint_0\", \"joint_1\"]", "[\"joint_0\", \"elbow\"]"}, "none of the bundle's joints"},
      {{"\"velocity\": [2.000000, 2.000000]", "\"velocity\": [2.0, 0]"}, "above 0"},
      {{"\"velocity\": [2.000000, 2.000000]", "\"velocity\": [2.0]"}, "expected 2"},
      {{"\"chunk\": 8", "\"chunk\": 0"}, "'chunk' is 0"},
      {{"\"execute\": 4", "\"execute\": 9"}, "at most 'chunk'"},
      {{"\"residual\": null", "\"residual\": {}"}, "residual"},
      {{"\"key\": \"policy\"", "\"key\": \"image/top\""}, "no images"},
      {{"joint_position", "joint_dance"}, "is unknown"},
      {{"\"policy.onnx\"", "\"../policy.onnx\""}, "no plain file name"},
      {{"\"ramp_s\": 0.500000", "\"ramp_s\": -1"}, "above 0"},
  };
  for (const auto& [change, sentence] : wrong) {
    synthetic::seal(folder, replaced(good, change.first, change.second));
    CHECK_REFUSED(load_bundle(folder), sentence);
  }
  synthetic::seal(folder, good);
  synthetic::write(folder + "/runtime.json", good + " ");
  CHECK_REFUSED(load_bundle(folder), "runtime.json was altered");
  synthetic::seal(folder, good);
  synthetic::write(folder + "/golden.npz", "x");
  CHECK_REFUSED(load_bundle(folder), "golden.npz was altered");
  synthetic::write(folder + "/controller.yaml", read_file(folder + "/controller.yaml") + "a: 1\n");
  CHECK_REFUSED(load_bundle(folder), "controller.yaml was altered");
  CHECK_REFUSED(load_bundle(folder + "/nowhere"), "cannot read");
  std::filesystem::remove_all(folder);
}

int main() {
  sha256_is_that_of_fips_180();
  json_reads_what_it_should();
  json_refuses_the_rest();
  arrays_survive_a_round_trip_and_damage();
  bundles_are_taken_or_refused_with_a_sentence();
}
