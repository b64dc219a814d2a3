/* table.h - the operations of a device in one table, from all families of kernels */
#ifndef CM_TABLE_H
#define CM_TABLE_H
#include "memory.h"
#include "pointwise.h"
#include "norm.h"
#include "pool.h"
#include "join.h"
#include "convolution.h"
#include "sparse.h"
#include "training.h"
#include "peak.h"

#define CM_DEVICE_OPERATIONS { \
    { cm_device_sparse, cm_device_sparse_backward }, \
    { cm_device_conv, cm_device_conv_backward }, \
    { cm_device_pool, cm_device_pool_backward }, \
    { cm_device_point, cm_device_point_backward }, \
    { cm_device_norm, cm_device_norm_backward }, \
    { cm_device_mean, cm_device_mean_backward }, \
    { cm_device_max, cm_device_max_backward }, \
    { cm_device_add, cm_device_add_backward }, \
    { cm_device_concat, cm_device_concat_backward }, \
    { cm_device_scale, cm_device_scale_backward }, \
    { cm_device_join, cm_device_join_backward }, \
    { cm_device_channel, cm_device_channel_backward }, \
    { cm_device_add_scaled, cm_device_add_scaled_backward }, \
    cm_device_norm_prepare, cm_device_zero, cm_device_zero_halo \
}

#endif
