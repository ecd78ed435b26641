// Package v20170312 stands in for a cloud SDK that no lab needs; it only lets its callers compile.
package v20170312

import "errors"

var errLeftOut = errors.New("the cloud SDK is left out of this build")

type Filter struct {
	Name   *string
	Values []*string
}
type Route struct {
	RouteId                                                 *uint64
	DestinationCidrBlock, GatewayId, GatewayType, RouteType *string
	Enabled                                                 *bool
}
type RouteTable struct {
	RouteTableId *string
	RouteSet     []*Route
}
type (
	DescribeRouteTablesRequest struct{ Filters []*Filter }
	DeleteRoutesRequest        struct {
		RouteTableId *string
		Routes       []*Route
	}
	CreateRoutesRequest = DeleteRoutesRequest
)
type DescribeRouteTablesResponse struct {
	Response *struct{ RouteTableSet []*RouteTable }
}
type Client struct{}

func NewClientWithSecretId(string, string, string) (*Client, error) { return nil, errLeftOut }
func NewDescribeRouteTablesRequest() *DescribeRouteTablesRequest {
	return &DescribeRouteTablesRequest{}
}
func NewDeleteRoutesRequest() *DeleteRoutesRequest { return &DeleteRoutesRequest{} }
func NewCreateRoutesRequest() *CreateRoutesRequest { return &CreateRoutesRequest{} }
func (*Client) DescribeRouteTables(*DescribeRouteTablesRequest) (*DescribeRouteTablesResponse, error) {
	return nil, errLeftOut
}
func (*Client) DeleteRoutes(*DeleteRoutesRequest) (any, error) { return nil, errLeftOut }
func (*Client) CreateRoutes(*CreateRoutesRequest) (any, error) { return nil, errLeftOut }
