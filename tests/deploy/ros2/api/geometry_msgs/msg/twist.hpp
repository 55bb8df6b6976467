#include "ros2_control_api.hpp"
