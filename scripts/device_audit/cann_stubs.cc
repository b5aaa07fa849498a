// The one C++ object that MindSpore fills while it loads. Its layout is that of CANN's old string type.
#include <cstdint>
#include <map>
#include <string>

namespace ge {
class StatusFactory {
 public:
  static StatusFactory *Instance();
  std::map<uint32_t, std::string> messages;
  char more[256];
};
StatusFactory *StatusFactory::Instance() {
  static StatusFactory factory;
  return &factory;
}
}  // namespace ge
