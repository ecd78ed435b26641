// Package common stands in for a cloud SDK that no lab needs; it only lets its callers compile.
package common

// StringPtr returns a pointer to s.
func StringPtr(s string) *string { return &s }

// BoolPtr returns a pointer to b.
func BoolPtr(b bool) *bool { return &b }

// StringPtrs returns pointers to the elements of list.
func StringPtrs(list []string) []*string {
	out := make([]*string, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out
}
