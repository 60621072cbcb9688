// bfloat16 on the host: a float's upper half, rounded to nearest, ties to even.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
    uint16_t bits = 0;

    __nv_bfloat16() = default;
    __nv_bfloat16(float value) {
        uint32_t all;
        std::memcpy(&all, &value, sizeof all);
        bits = std::isnan(value) ? 0x7fc0 : (all + 0x7fff + (all >> 16 & 1)) >> 16;
    }
    operator float() const {
        const uint32_t all = uint32_t(bits) << 16;
        float value;
        std::memcpy(&value, &all, sizeof value);
        return value;
    }
};
