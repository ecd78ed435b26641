// Package errors stands in for a cloud SDK that no lab needs; it only lets its callers compile.
package errors

// TencentCloudSDKError is never returned.
type TencentCloudSDKError struct{}

func (*TencentCloudSDKError) Error() string { return "the cloud SDK is left out of this build" }
