// Bias and bend, one element at a time: clamp(gain * (x + b)), times slope below 0.
#pragma once

#include "device.h"

template <class T>
struct Bend {
    T slope, gain, clamp;  // clamp may be infinite
};

template <class T>
HD T bend(T x, Bend<T> k) {
    x *= k.gain * (x > 0 ? T(1) : k.slope);
    return x > k.clamp ? k.clamp : x < -k.clamp ? -k.clamp : x;
}

// gradient x derivative where the bend's value is y.
template <class T>
HD T bend_derivative(T gradient, T y, Bend<T> k) {
    T slope = y > 0 ? k.gain : k.gain * k.slope;
    return y < k.clamp && y > -k.clamp ? gradient * slope : T(0);
}
