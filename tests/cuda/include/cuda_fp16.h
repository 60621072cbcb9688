// Half precision on the host: GCC's own type.
#pragma once
using __half = _Float16;
