"""Every operation of the Lambda API that Lambstead answers, by its name in the service model."""

from collections.abc import Mapping

from lambstead.api import (
    lambda_aliases,
    lambda_capacity,
    lambda_functions,
    lambda_invoke,
    lambda_invoke_stream,
    lambda_scaling,
    lambda_tags,
    lambda_versions,
)
from lambstead.api.context import Operation

LAMBDA: Mapping[str, Operation] = {
    "CreateFunction": lambda_functions.create_function,
    "GetFunction": lambda_functions.get_function,
    "GetFunctionConfiguration": lambda_functions.get_function_configuration,
    "UpdateFunctionCode": lambda_functions.update_function_code,
    "UpdateFunctionConfiguration": lambda_functions.update_function_configuration,
    "DeleteFunction": lambda_functions.delete_function,
    "ListFunctions": lambda_functions.list_functions,
    "PublishVersion": lambda_versions.publish_version,
    "ListVersionsByFunction": lambda_versions.list_versions_by_function,
    "CreateAlias": lambda_aliases.create_alias,
    "GetAlias": lambda_aliases.get_alias,
    "UpdateAlias": lambda_aliases.update_alias,
    "DeleteAlias": lambda_aliases.delete_alias,
    "ListAliases": lambda_aliases.list_aliases,
    "TagResource": lambda_tags.tag_resource,
    "UntagResource": lambda_tags.untag_resource,
    "ListTags": lambda_tags.list_tags,
    "CreateCapacityProvider": lambda_capacity.create_capacity_provider,
    "GetCapacityProvider": lambda_capacity.get_capacity_provider,
    "UpdateCapacityProvider": lambda_capacity.update_capacity_provider,
    "DeleteCapacityProvider": lambda_capacity.delete_capacity_provider,
    "ListCapacityProviders": lambda_capacity.list_capacity_providers,
    "ListFunctionVersionsByCapacityProvider": lambda_capacity.list_function_versions_by_capacity_provider,
    "PutFunctionScalingConfig": lambda_scaling.put_function_scaling_config,
    "GetFunctionScalingConfig": lambda_scaling.get_function_scaling_config,
    "Invoke": lambda_invoke.invoke,
    "InvokeWithResponseStream": lambda_invoke_stream.invoke_with_response_stream,
}
