variable "ddg_api_key" {
  type        = string
  description = "Datadog API key. By default the provider takes DD_API_KEY from its environment."
  default     = null
  sensitive   = true
}

variable "ddg_app_key" {
  type        = string
  description = "Datadog application key of a user who may write dashboards and monitors. By default the provider takes DD_APP_KEY from its environment."
  default     = null
  sensitive   = true
}

variable "ddg_site" {
  type        = string
  description = "Datadog site that the keys belong to, such as datadoghq.eu. By default it is that of the settings file, or datadoghq.com."
  default     = null

  validation {
    condition     = var.ddg_site == null || try(contains(["datadoghq.com", "datadoghq.eu", "ddog-gov.com"], var.ddg_site), false) || can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+(datadoghq\\.com|ddog-gov\\.com)$", var.ddg_site)) && !can(regex("^(api|app)\\.", var.ddg_site))
    error_message = "ddg_site is one of datadoghq.com, us3.datadoghq.com, us5.datadoghq.com, datadoghq.eu, ap1.datadoghq.com, ap2.datadoghq.com, uk1.datadoghq.com, ddog-gov.com, us2.ddog-gov.com or another host under datadoghq.com or ddog-gov.com: no https://, no api. or app. before it."
  }
}

variable "settings_file" {
  type        = string
  description = "The stack's settings file, as JSON. Its `jobs` and `metrics` apply, and its name, site and prefix unless you set them here. By default it is ../stack.auto.tfvars.json, if that exists."
  default     = null

  validation {
    condition     = var.settings_file == null || try(fileexists(var.settings_file), false)
    error_message = "settings_file doesn't exist. A relative path starts at the folder where Terraform runs."
  }
}

variable "name" {
  type        = string
  description = "Name of the stack to show. By default it is that of the settings file, or ddg-stats."
  default     = null

  validation {
    condition     = var.name == null || can(regex("^[a-z0-9][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name is 3 to 24 characters: lower case letters, digits and hyphens, no hyphen at either end."
  }
}

variable "metric_prefix" {
  type        = string
  description = "Prefix of the generator's two metrics, such as `etl.` for etl.sample.stats; they are shown unless `metrics` names others. By default it is that of the settings file."
  default     = null

  validation {
    condition     = var.metric_prefix == null || can(regex("^([A-Za-z][A-Za-z0-9_.]*)?$", var.metric_prefix))
    error_message = "metric_prefix is empty, or letters, digits, _ and . with a letter first: etl."
  }
}

variable "notify" {
  type        = string
  description = "Whom the monitors notify, as in a Datadog message: @oncall@example.com @slack-data. Without it, monitors are only visible in Datadog."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(@\\S+( @\\S+)*)?$", var.notify))
    error_message = "notify is empty, or handles with a space between: @oncall@example.com @slack-data."
  }
}

variable "health_widgets" {
  type        = bool
  description = "Whether the dashboard also shows the pipeline's own health. These numbers come from CloudWatch: Datadog's AWS integration must collect SQS and custom metrics (DatadogStats)."
  default     = false
  nullable    = false
}

variable "describe_metrics" {
  type        = bool
  description = "Whether to send the type, unit, per_unit, short_name and description in `metrics` to Datadog. Turn it on once every metric has points, because Datadog answers 404 for a metric that it has never seen."
  default     = false
  nullable    = false
}
