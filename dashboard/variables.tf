variable "ddg_api_key" {
  type        = string
  description = "Datadog API key. Default: the environment variable DD_API_KEY."
  default     = null
  sensitive   = true
}

variable "ddg_app_key" {
  type        = string
  description = "Datadog application key of a user who may write dashboards and monitors. Default: the environment variable DD_APP_KEY."
  default     = null
  sensitive   = true
}

variable "ddg_site" {
  type        = string
  description = "Datadog site that the keys belong to, such as datadoghq.eu. Default: the settings file's, or datadoghq.com."
  default     = null

  validation {
    condition     = var.ddg_site == null || try(contains(["datadoghq.com", "datadoghq.eu", "ddog-gov.com"], var.ddg_site), false) || can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+(datadoghq\\.com|ddog-gov\\.com)$", var.ddg_site)) && !can(regex("^(api|app)\\.", var.ddg_site))
    error_message = "ddg_site must be a Datadog site without https://, api. or app.: datadoghq.com, us3.datadoghq.com, us5.datadoghq.com, datadoghq.eu, ap1.datadoghq.com, ap2.datadoghq.com, uk1.datadoghq.com, ddog-gov.com, us2.ddog-gov.com, or another host under datadoghq.com or ddog-gov.com."
  }
}

variable "settings_file" {
  type        = string
  description = "The stack's settings file, as JSON. It has the `jobs` and `metrics`, and the name, site and prefix that you don't set here. Default: ../stack.auto.tfvars.json, if that exists."
  default     = null

  validation {
    condition     = var.settings_file == null || try(fileexists(var.settings_file), false)
    error_message = "settings_file must be an existing file. A relative path starts at the folder where Terraform runs."
  }
}

variable "name" {
  type        = string
  description = "Name of the stack to show. Default: the settings file's, or ddg-stats."
  default     = null

  validation {
    condition     = var.name == null || can(regex("^[a-z0-9][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must have 3 to 24 characters: lower-case letters, digits and hyphens, no hyphen at either end."
  }
}

variable "metric_prefix" {
  type        = string
  description = "Prefix of the generator's two metrics, such as `etl.` for etl.sample.stats. The dashboard shows these metrics if the settings file has no `metrics`. Default: the settings file's."
  default     = null

  validation {
    condition     = var.metric_prefix == null || can(regex("^([A-Za-z][A-Za-z0-9_.]*)?$", var.metric_prefix))
    error_message = "metric_prefix must be empty, or a letter followed by letters, digits, _ and dots, such as etl."
  }
}

variable "notify" {
  type        = string
  description = "Handles that the monitors notify, as in a Datadog message: @oncall@example.com @slack-data. Without any, monitors only show in Datadog."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(@\\S+( @\\S+)*)?$", var.notify))
    error_message = "notify must be empty, or handles with a space between them: @oncall@example.com @slack-data."
  }
}

variable "health_widgets" {
  type        = bool
  description = "Whether the dashboard also shows the pipeline's own health. These numbers come from CloudWatch: in Datadog's AWS integration, turn on SQS and custom metrics (DatadogStats)."
  default     = false
  nullable    = false
}

variable "describe_metrics" {
  type        = bool
  description = "Whether to set each metric's type, unit, per_unit, short_name and description in Datadog. Turn it on once every metric has points, because Datadog answers 404 for a metric that it has never seen."
  default     = false
  nullable    = false
}
