// write_bundle FOLDER: the synthetic bundle of the tests, for the example.
#include <unistd.h>

#include <cmath>

#include "synthetic.hpp"

int main(int count, char** words) {
  if (count != 2) return 2;
  const std::string made = synthetic::bundle("example");
  std::filesystem::remove_all(words[1]);
  std::filesystem::copy(made, words[1]);
  std::filesystem::remove_all(made);
}
